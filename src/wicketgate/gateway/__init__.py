"""The gateway: TLS and WebSocket front, decision in memory, relay. Unprivileged; dials through netd."""

from wicketgate.gateway.config import GatewayConfig, GatewayError

__all__ = ["GatewayConfig", "GatewayError"]
