"""The 60 claims of the source documents, and what runs and arithmetic say of each."""
