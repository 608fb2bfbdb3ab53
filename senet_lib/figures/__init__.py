"""Figures in one language, on axes a notebook can see."""
