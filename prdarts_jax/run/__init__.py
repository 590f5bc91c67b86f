"""A command as a resumable job: a config in, a folder of results out."""
