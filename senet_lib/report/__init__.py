"""Notebooks executed in batch, and the pages made of them."""
