"""Signature Version 4: make and check signatures. Pure: keys and time are passed in.

Only the light half is re-exported, because the client imports it on each start: `wicketgate.sigv4.verify`, the
server's half, also loads the model and is imported by name.
"""

from wicketgate.sigv4.presign import Credentials, presign, tunnel_parameters

__all__ = ["Credentials", "presign", "tunnel_parameters"]
