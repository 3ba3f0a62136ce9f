"""What is wrong with a question, or could not be found out, in each language; read after the place that it is about."""

from __future__ import annotations

from typing import Final

_WHO: Final = (
    "give a user's name, role/NAME, root, an ARN or an access key's id",
    "ユーザー名、role/ロール名、root、ARN、アクセスキー ID のいずれかを指定してください",
)

ASKING: Final[dict[str, tuple[str, str]]] = {
    "ask-address": (
        "{given!r} is no IP address; give the client's, for example 203.0.113.10",
        "{given!r} は IP アドレスではありません。クライアントのアドレスを指定してください (例: 203.0.113.10)",
    ),
    "ask-port": (
        "{given} is no TCP port; one is from 1 to 65535",
        "{given} は TCP ポートではありません。1 から 65535 までの値を指定してください",
    ),
    "ask-key": (
        "there is no such access key as {given}; " + _WHO[0],
        "アクセスキー {given} は存在しません。" + _WHO[1],
    ),
    "ask-no-user": ("there is no user {name!r}; " + _WHO[0], "ユーザー {name!r} は存在しません。" + _WHO[1]),
    "ask-no-role": ("there is no role {name!r}; " + _WHO[0], "ロール {name!r} は存在しません。" + _WHO[1]),
    "ask-arn": (
        "the ARN is of no user, role, session or root: {given}; " + _WHO[0],
        "{given} はユーザー、ロール、セッション、ルートユーザーのいずれの ARN でもありません。" + _WHO[1],
    ),
    "ask-account": (
        "{given} is of another account; this one is {account} in partition {partition}",
        "{given} は別のアカウントのものです。ここはパーティション {partition} のアカウント {account} です",
    ),
    "ask-nobody": (
        "say who it is about; " + _WHO[0],
        "だれについての質問かを指定してください。" + _WHO[1],
    ),
    "ask-client": (
        "say from which address the client comes, for example 203.0.113.10",
        "クライアントのアドレスを指定してください (例: 203.0.113.10)",
    ),
    "ask-endpoint": (
        "there is no such endpoint as {given}; those that are: {there}",
        "エンドポイント {given} は存在しません。存在するもの: {there}",
    ),
    "ask-endpoint-none": (
        "there is no such endpoint as {given}, nor any other",
        "エンドポイント {given} は存在しません。ほかのエンドポイントもありません",
    ),
    "ask-instance": (
        "there is no such instance as {given}, or it has ended and has no network interface",
        "インスタンス {given} は存在しないか、終了していてネットワークインターフェイスがありません",
    ),
    "ask-interface": (
        "there is no such network interface as {given}",
        "ネットワークインターフェイス {given} は存在しません",
    ),
    "ask-target": (
        "{given!r} is no instance id, network interface id or IP address",
        "{given!r} はインスタンス ID、ネットワークインターフェイス ID、IP アドレスのいずれでもありません",
    ),
    "ask-target-missing": (
        "say what is to be reached: an instance's or network interface's id, or a private address",
        "接続先を指定してください (インスタンス ID、ネットワークインターフェイス ID、プライベート IP アドレス)",
    ),
    "ask-several": (
        "{given} is in several VPCs ({vpcs}); name the endpoint, or the instance by its id",
        "{given} は複数の VPC ({vpcs}) にあります。エンドポイントを指定するか、インスタンス ID で指定してください",
    ),
    "ask-nowhere": (
        "no network interface has this address, {given}; name the endpoint to say in which VPC it is meant",
        "アドレス {given} を持つネットワークインターフェイスはありません。"
        "どの VPC のことかわかるように、エンドポイントを指定してください",
    ),
    "ask-time": (
        "the journal does not reach back to {given}",
        "{given} の時点の記録は残っていません",
    ),
    "ask-request": (
        "the audit trail has no request {given}",
        "監査ログにリクエスト {given} はありません",
    ),
    "ask-not-a-tunnel": (
        "request {given} is a call of {event}, not an attempt to open a tunnel; its answer was: {answer}",
        "リクエスト {given} は {event} の呼び出しで、トンネルを開く試みではありません。応答: {answer}",
    ),
    "ask-not-read": (
        "request {given} had no parameters that could be read; its answer was: {answer}",
        "リクエスト {given} には読み取れるパラメータがありませんでした。応答: {answer}",
    ),
    "ask-with-request": (
        "a recorded attempt says by itself who, from where and to what; give nothing beside its id",
        "記録された試みには、だれが・どこから・どこへがすべて含まれています。ID 以外は指定しないでください",
    ),
    "ask-world": (
        "the World cannot be read: {reason}",
        "World を読み取れません: {reason}",
    ),
}
"""Key -> English, Japanese."""
