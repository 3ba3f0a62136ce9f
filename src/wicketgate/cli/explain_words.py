"""What `wicketgate explain` says by itself, beside the answer it prints: in each language.

Apart from the catalogue of `wicketgate.explain`, so that the verb needs no more than the client does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

Language = Literal["en", "ja"]

WORDS: Final[dict[str, tuple[str, str]]] = {
    "sign-pass": ("ok  ", "可  "),
    "sign-fail": ("FAIL", "不可"),
    "sign-unknown": ("?   ", "不明"),
    "result-pass": ("The connection can be made.", "接続できます。"),
    "result-fail": ("The connection cannot be made.", "接続できません。"),
    "result-unknown": ("It cannot be told whether the connection can be made.", "接続できるかどうか判断できません。"),
    "probe": ("probe", "実接続"),
    "prove": ("proof", "検証"),
    "opened": ("a tunnel opened along this way", "この経路でトンネルが開きました"),
    "not-opened": ("no tunnel opened, as explained: {told}", "説明のとおり、トンネルは開きませんでした: {told}"),
    "beyond": (
        "all of this passes, but the target does not answer: {told}",
        "ここまではすべて可ですが、ターゲットが応答しません: {told}",
    ),
    "limit": ("a limit that was not asked for is reached: {told}", "確認していない上限に達しています: {told}"),
    "unclear": (
        "it cannot be told from the refusal whether the explanation is right: {told}",
        "拒否の内容からは説明が正しいかどうか判断できません: {told}",
    ),
    "no-endpoint": ("there is no endpoint to open a tunnel by", "トンネルを開くためのエンドポイントがありません"),
    "own": (
        "with your own credentials, as {who} from {source}, which is not what was asked about",
        "質問の対象ではなく、ご自身の認証情報 ({who}、送信元 {source}) で接続しました",
    ),
    "banner": ("what answers says {banner}", "応答がありました: {banner}"),
    "no-ssh": ("what answers is no SSH server: {banner}", "SSH サーバーではないものが応答しました: {banner}"),
    "silent": (
        "a tunnel opened, but nothing was said for {seconds} s",
        "トンネルは開きましたが、{seconds} 秒間応答がありませんでした",
    ),
    "not-probed": ("no tunnel opened: {told}", "トンネルは開きませんでした: {told}"),
    "mismatch": (
        "THIS IS A BUG OF WICKETGATE. The explanation and the real connection contradict each other. "
        "Please report it, with everything below:",
        "これは wicketgate の不具合です。説明と実際の接続が食い違っています。以下の内容をすべて添えて報告してください:",
    ),
}
"""Key -> English, Japanese."""


def say(key: str, language: Language, **facts: str) -> str:
    """A sentence."""
    return WORDS[key][0 if language == "en" else 1].format(**facts)


def language_of(environment: Mapping[str, str]) -> Language:
    """The language that a locale's variables ask for (POSIX, 8.2 Internationalization Variables); English if none."""
    locale = next(filter(None, map(environment.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "ja" if locale.lower().startswith("ja") else "en"
