"""What the figures in docs/ were made with. Anyone can run it; nothing here is a test."""
