"""The AWS wire formats, driven by botocore's service models: bytes to input, output to bytes. No I/O."""

from wicketgate.api.faults import OutputError
from wicketgate.api.service import MAX_BODY, Call, Catalogue, Message, Reply, Service
from wicketgate.model import ApiError

__all__ = ["MAX_BODY", "ApiError", "Call", "Catalogue", "Message", "OutputError", "Reply", "Service"]
