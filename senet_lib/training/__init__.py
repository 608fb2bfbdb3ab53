"""The training loop: `fit`, its engine, what it shows, several seeds at once."""
