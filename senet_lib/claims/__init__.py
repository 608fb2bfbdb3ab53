"""The 60 claims of the source documents, and what runs and arithmetic say of each."""

from senet_lib.claims.claim import load_claims as load_claims
