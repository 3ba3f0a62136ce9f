"""`wicketgate host-setup i-...`: let a machine that reaches no link-local metadata take pushed SSH keys."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import click

from wicketgate.cli.tunnelling import complain

if TYPE_CHECKING:
    from wicketgate.client.explaining import Deployment

NOTHING_CHANGED = 255


@click.command()
@click.option("--renew", is_flag=True, help="Make a new credential in the place of the one that it has.")
@click.option("--undo", is_flag=True, help="Undo it, and end the machine's credentials.")
@click.option("--apply", is_flag=True, help="Run the script on the machine, over `wicketgate ssh` and sudo.")
@click.option("--server", metavar="URL", help="The APIs as the machine calls them.  [default: as they are called here]")
@click.option("--address", metavar="IP[:PORT]", default="", help="Where the machine finds them, without asking DNS.")
@click.option(
    "--machine-ca",
    metavar="FILE",
    help="What the machine checks the server by; `system`: its own roots.  [default: the deployment's CA]",
)
@click.option("--os-user", metavar="NAME", help="With --apply: who to be on the machine.")
@click.option("--private-key-file", metavar="FILE", help="With --apply: log in with this key.")
@click.option("--ssh-port", type=click.IntRange(1, 65535), help="With --apply: the port of the machine's sshd.")
@click.option("--eice-options", metavar="OPTIONS", help="With --apply: as `wicketgate ssh` takes them.")
@click.option("--profile", help="A profile of the AWS credentials and config files.")
@click.option("--region", help="The region to sign for.")
@click.option("--ca-bundle", metavar="FILE", help="Trust the certificates in FILE and no others.")
@click.option("--endpoint-url", metavar="URL", help="Where the APIs are.")
@click.argument("instance")
def command(  # noqa: PLR0917  # one parameter per option
    renew: bool,
    undo: bool,
    apply: bool,
    server: str | None,
    address: str,
    machine_ca: str | None,
    os_user: str | None,
    private_key_file: str | None,
    ssh_port: int | None,
    eice_options: str | None,
    profile: str | None,
    region: str | None,
    ca_bundle: str | None,
    endpoint_url: str | None,
    instance: str,
) -> int:
    """Print the script that sets a machine up to take pushed SSH keys, or run it there.

    The script is for root on the machine INSTANCE; it says first what it does. It holds the machine's credential.
    """
    from wicketgate.client.errors import ClientError
    from wicketgate.client.explaining import Deployment

    if renew and undo:
        raise click.UsageError("--renew and --undo exclude one another.")
    shared = {"--profile": profile, "--region": region, "--ca-bundle": ca_bundle, "--endpoint-url": endpoint_url}
    more = {"--os-user": os_user, "--private-key-file": private_key_file, "--eice-options": eice_options}
    more |= {"--ssh-port": None if ssh_port is None else str(ssh_port)}
    if not apply and any(more.values()):
        raise click.UsageError("--os-user, --private-key-file, --ssh-port and --eice-options go with --apply.")
    run = _Remote(instance, {**shared, **more}, as_root=os_user == "root") if apply else None
    try:
        deployment = Deployment.resolve(
            os.environ, profile=profile, region=region, ca_bundle=ca_bundle, endpoint_url=endpoint_url
        )
        if undo:
            return _undo(deployment, instance, run)
        url = server or deployment.url
        return _set_up(deployment, instance, run, _Wish(url, address, _pem(machine_ca)), renew=renew)
    except ClientError as error:
        complain(str(error))
        return error.exit_code


class _Wish:
    """How the machine is to reach the server."""

    def __init__(self, url: str, address: str, ca: str | None) -> None:
        self.url, self.address, self.ca = url, address, ca


class _Remote:
    """`wicketgate ssh` to the machine, to run a script as root."""

    def __init__(self, instance: str, options: dict[str, str | None], *, as_root: bool) -> None:
        from wicketgate.client.ssh import own_command

        words = [f"{name}={value}" for name, value in options.items() if value]
        # sudo -n: nobody is there to type a password, standard input is the script.
        shell = ["sh", "-s"] if as_root else ["sudo", "-n", "sh", "-s"]
        self.argv = own_command("ssh", *words, "--instance-id", instance, "--", "-T", *shell)

    def __call__(self, script: str) -> int:
        """Run it; ssh's exit code, which is the script's if that came to run."""
        return subprocess.run(self.argv, input=script.encode(), check=False).returncode


def _pem(name: str | None) -> str | None:
    """The machine's CA as given; None = the deployment's, empty = the machine's own roots. Raises UsageError."""
    if name is None:
        return None
    if name == "system":
        return ""
    try:
        text = Path(name).read_text(encoding="ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--machine-ca {name}: {error}") from error
    if "-----BEGIN CERTIFICATE-----" not in text:
        raise click.UsageError(f"--machine-ca {name}: there is no certificate in it.")
    return text


def _credentials(deployment: Deployment, instance: str) -> list[str]:
    answer = deployment.ask("DescribeMachineCredentials", {"InstanceIds": [instance]})
    return [str(one["MachineCredentialId"]) for one in answer.get("MachineCredentials", ())]


def _delete(deployment: Deployment, instance: str, credential: str) -> None:
    parameters = {"InstanceId": instance, "MachineCredentialId": credential}
    deployment.ask("DeleteMachineCredential", parameters)


def _set_up(deployment: Deployment, instance: str, run: _Remote | None, wish: _Wish, *, renew: bool) -> int:
    from wicketgate.client.host_setup import Machine, setup_script

    Machine.of(instance, {"MachineToken": "x"}, wish.url, wish.ca, wish.address)  # before anything is made
    there = _credentials(deployment, instance)
    if there and not renew:
        complain(
            f"{instance} has a credential, {there[-1]}, whose secret is not kept: --renew makes another in its place."
        )
        return NOTHING_CHANGED
    for credential in there[1:]:  # two are possible; the oldest works until the new one does
        _delete(deployment, instance, credential)
    answer = deployment.ask("CreateMachineCredential", {"InstanceId": instance})
    made = str(answer["MachineCredential"]["MachineCredentialId"])
    script = setup_script(Machine.of(instance, answer, wish.url, wish.ca, wish.address))
    if run is None:
        _print(script)
    elif code := run(script):
        _delete(deployment, instance, made)
        complain(f"The machine was not set up; the credential that was made for it, {made}, has been deleted.")
        return code
    for credential in there[:1]:
        _delete(deployment, instance, credential)
    return 0


def _print(script: str) -> None:
    """As bytes: wherever it is printed, it is for a POSIX shell."""
    click.echo(script.encode(), nl=False)


def _undo(deployment: Deployment, instance: str, run: _Remote | None) -> int:
    from wicketgate.client.host_setup import undo_script

    if run is None:
        _print(undo_script())
    elif code := run(undo_script()):
        complain("The machine is as it was; its credential goes on.")
        return code
    for credential in _credentials(deployment, instance):
        _delete(deployment, instance, credential)
    return 0
