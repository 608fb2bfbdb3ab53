"""Files as JupyterLab's server gives them to a browser."""

from jupyter_server.base.handlers import AuthenticatedFileHandler


class Files(AuthenticatedFileHandler):
    """Lets the links of a report work where JupyterLab shows it, in a frame that names no referer.

    The server refuses other sites, which could read a file by including it, but not by following a
    link. Browsers say which of the two a request is.
    """

    def check_referer(self) -> bool:
        """Whether a request comes from here, or follows a link."""
        said = self.request.headers
        followed = said.get("Sec-Fetch-Mode") == "navigate"
        shown = said.get("Sec-Fetch-Dest") in ("document", "iframe")
        return (followed and shown) or super().check_referer()

    @property
    def content_security_policy(self) -> str:
        """In a frame a page has no scripts, but still belongs here: its links know who asks."""
        policy = super().content_security_policy
        if self.request.headers.get("Sec-Fetch-Dest") == "iframe":
            return policy.replace("sandbox allow-scripts", "sandbox allow-same-origin")
        return policy
