"""What a found cell is worth."""
