"""Jobs that can be resumed: each reads a config and writes a folder of results."""
