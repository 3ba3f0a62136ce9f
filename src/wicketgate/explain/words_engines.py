"""Japanese for the sentences that the engines have: each by the engine's key, the English is the engine's own."""

from __future__ import annotations

from typing import Final

from wicketgate.iam.conditions import SHORTFALLS
from wicketgate.tunnel.targets import REFUSALS

_REFUSALS: Final = {
    "not-an-address": "{given} は IP アドレスではありません",
    "family": "{address} は IPv{version} アドレスですが、{kind} のエンドポイントは {kind} アドレスにのみ接続します",
    "outside": "{address} はエンドポイントの VPC {vpc} の範囲 {ranges} の外にあります",
    "outside-several": "{address} はエンドポイントの VPC {vpc} のどの範囲 ({ranges}) にも含まれません",
    "outside-none": "エンドポイントの VPC {vpc} には IPv6 の範囲がないため、{address} は VPC の外にあります",
    "own": "{address} はエンドポイント自身のアドレスです",
    "resolver": "{address} は {vpc} の DNS サーバーのアドレスです",
    "network": "{address} は {subnet} のネットワークアドレスです",
    "router": "{address} は {subnet} の VPC ルーターのアドレスです",
    "subnet-broadcast": "{address} は {subnet} のブロードキャストアドレスです",
    "client-ipv6": "{address} は IPv6 アドレスですが、クライアント IP の保持は IPv4 のみが対象です",
    "client-family": "{address} は IPv{version} アドレスのため、IPv{other} アドレスへの送信元にはなれません",
    "client-inside": "{address} はエンドポイントの VPC {vpc} の範囲 {ranges} に含まれます",
    "client-inside-several": "{address} はエンドポイントの VPC {vpc} の範囲 ({ranges}) に含まれます",
    "client-no-return": (
        "{target} は応答をこのゲートウェイ経由で返さないため、クライアントのアドレスを保持して接続できません"
    ),
    "metadata": "{address} はインスタンスメタデータサービスです",
    "loopback": "{address} はループバックアドレスです",
    "link-local": "{address} はリンクローカルアドレスです",
    "multicast": "{address} はマルチキャストアドレスです",
    "broadcast": "{address} はブロードキャストアドレスです",
    "reserved": "{address} は予約された範囲 240.0.0.0/4 のアドレスです",
    "unspecified": "{address} は未指定アドレスです",
    "this-network": "{address} は、ホストを表さない範囲 0.0.0.0/8 のアドレスです",
    "services": "{address} は、VPC 自身のサービスがある範囲 fd00:ec2::/32 のアドレスです",
    "compatible": "{address} は、ホストを表さない範囲 ::/96 のアドレスです",
}

_SHORTFALLS: Final = {
    "missing": "{operator} {name}: リクエストにこのキーがありません",
    "present": "{operator} {name}: リクエストにこのキーがあります",
    "absent": "{operator} {name}: リクエストにこのキーがありません (条件の値は {wanted})",
    "value": "{operator} {name}: リクエストの値 {found} は条件 {wanted} を満たしません",
    "resource": "リソース {resource} が {named} に一致しません",
    "not-resource": "リソース {resource} が NotResource {named} に一致します",
}

ENGINES: Final[dict[str, tuple[str, str]]] = {
    **{f"refusal-{key}": (english, _REFUSALS[key]) for key, english in REFUSALS.items()},
    **{f"shortfall-{key}": (english, _SHORTFALLS[key]) for key, english in SHORTFALLS.items()},
}
"""Key -> English, Japanese. A sentence of an engine that is not here fails at import."""
