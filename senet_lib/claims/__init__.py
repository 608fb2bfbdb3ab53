"""The 60 claims of the source documents, and what runs and arithmetic say of each."""

from senet_lib.claims.claim import Claim, load_claims, load_protocol

__all__ = ["Claim", "load_claims", "load_protocol"]
