"""SendSSHPublicKey: every refusal, which keys are taken, what IAM is asked, what lives how long, the signed form."""

import base64
import subprocess
import tomllib

import botocore.session
import msgspec
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.unit.net_world import GOLDEN, NOW, ROOT, RUNNING, small_world
from tests.unit.test_ssh_signer import Memory
from wicketgate import ssh_signer
from wicketgate.control import Call, Caller, operations
from wicketgate.control import instance_connect as _instance_connect  # noqa: F401  # offers its action
from wicketgate.control.ssh_keys import KeyProblem, key_line
from wicketgate.model import ApiError, apply_change

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
OTHER = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIHHHHnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"
SEND = operations()["ec2-instance-connect", "SendSSHPublicKey"]
GOOD = {"InstanceId": RUNNING, "InstanceOSUser": "ec2-user", "SSHPublicKey": KEY}
ERRORS = tomllib.loads((GOLDEN / "errors.toml").read_text(encoding="utf-8"))["instance-connect"]
SIGNER = ssh_signer.ensure(Memory(), "us-east-1", "wicketgate.test")


def call(world, *, now=NOW, sign=SIGNER.sign, request_id="req-1", **parameters):
    """A call by root."""
    return Call(
        world=world,
        action="SendSSHPublicKey",
        parameters=GOOD | parameters,
        caller=Caller(arn=ROOT, account_id="123456789012"),
        now=now,
        request_id=request_id,
        new_id=lambda prefix: pytest.fail(f"an id for {prefix}"),
        sign=sign,
    )


def pushed(world, **how):
    """The World after a push."""
    return apply_change(world, SEND.run(call(world, **how)).change)


def openssh(key):
    """A public key as its OpenSSH line."""
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def test_offered_under_the_service_models_name():
    """botocore's model knows the action, and has no other that we offer."""
    model = botocore.session.get_session().get_service_model("ec2-instance-connect")
    ours = {name for service, name in operations() if service == "ec2-instance-connect"}
    assert ours == {"SendSSHPublicKey"} < set(model.operation_names)
    shapes = {shape.name for shape in model.operation_model("SendSSHPublicKey").error_shapes}
    assert {error["code"] for error in ERRORS} <= shapes


@pytest.mark.parametrize("error", ERRORS, ids=lambda one: one["does"])
def test_refusal(error):
    """A bad call is refused with the code and words that the golden file has."""
    with pytest.raises(ApiError) as caught:
        SEND.run(call(small_world(), **error["parameters"]))
    expected = (error["code"], error["message"], 400)
    assert (caught.value.code, str(caught.value), caught.value.http_status) == expected


def test_a_server_without_a_signer_is_at_fault():
    """A key that no instance would take is not reported as pushed."""
    with pytest.raises(ApiError) as caught:
        SEND.run(call(small_world(), sign=None))
    assert (caught.value.code, caught.value.http_status) == ("ServiceException", 500)


def test_answer_and_what_is_kept():
    """The request's id and success; a key for one user of one instance that ends after 60 s."""
    outcome = SEND.run(call(small_world(), AvailabilityZone="us-east-1a", SSHPublicKey=f"{KEY} me@laptop é\n"))
    assert outcome.answer == {"RequestId": "req-1", "Success": True}
    (key,) = outcome.change.puts
    assert (key.instance_id, key.os_user, key.expires, key.caller, key.request_id) == (
        RUNNING,
        "ec2-user",
        NOW + 60,
        ROOT,
        "req-1",
    )
    assert key.public_key == KEY, "nothing that the caller wrote beside the key is kept"


def test_several_live_at_once_and_ended_ones_go():
    """Another user, another key: both live; the same again is renewed; what has ended is deleted by the next push."""
    world = pushed(small_world())
    world = pushed(world, now=NOW + 1, InstanceOSUser="admin")
    world = pushed(world, now=NOW + 2, SSHPublicKey=OTHER)
    world = pushed(world, now=NOW + 3, request_id="req-2")
    assert sorted((key.os_user, key.public_key == KEY, key.expires - NOW) for key in world.pushed_keys) == [
        ("admin", True, 61),
        ("ec2-user", False, 62),
        ("ec2-user", True, 63),
    ]
    world = pushed(world, now=NOW + 62, SSHPublicKey=OTHER)
    assert sorted(key.expires - NOW for key in world.pushed_keys) == [63, 122]
    assert [key.expires - NOW for key in pushed(world, now=NOW + 500).pushed_keys] == [560]


def test_what_iam_is_asked():
    """The instance's ARN with its tags and the user; of an instance that does not exist by its name alone."""
    (ask,) = SEND.asks(call(small_world()))
    assert (ask.action, ask.resource) == (
        "ec2-instance-connect:SendSSHPublicKey",
        f"arn:aws:ec2:us-east-1:123456789012:instance/{RUNNING}",
    )
    assert dict(ask.context) == {
        "ec2:Region": ("us-east-1",),
        "ec2:osuser": ("ec2-user",),
        "aws:ResourceTag/Name": ("web-1",),
        "ec2:ResourceTag/Name": ("web-1",),
    }
    (ask,) = SEND.asks(call(small_world(), InstanceId="i-0123456789abcdef0"))
    assert dict(ask.context) == {"ec2:Region": ("us-east-1",), "ec2:osuser": ("ec2-user",)}


def test_the_signed_form():
    """Comment lines, key line, and a signature by the signer's certificate over all of them; no other text passes."""
    (key,) = SEND.run(call(small_world())).change.puts
    lines = key.blob.splitlines()
    assert lines[:5] == [
        f"#Timestamp={int(NOW) + 60}",
        f"#Instance={RUNNING}",
        f"#Caller={ROOT}",
        "#Request=req-1",
        KEY,
    ]
    assert key.blob.endswith("\n")
    assert max(len(line) for line in lines[5:]) == 76
    signature = base64.b64decode("".join(lines[5:]), validate=True)
    public = x509.load_pem_x509_certificate(SIGNER.chain).public_key()
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    public.verify(signature, "".join(f"{line}\n" for line in lines[:5]).encode(), pss, hashes.SHA256())
    with pytest.raises(InvalidSignature):
        public.verify(signature, "".join(f"{line}\n" for line in lines[1:5]).encode(), pss, hashes.SHA256())


@pytest.mark.parametrize("kind", [("rsa", 2048), ("rsa", 4096), ("ed25519", 256)], ids=str)
def test_keys_of_ssh_keygen_are_taken(kind, tmp_path):
    """What ssh-keygen makes is read back as ssh-keygen has it, as an OpenSSH line and as an SSH2 block."""
    path = tmp_path / "key"
    name, bits = kind
    subprocess.run(["ssh-keygen", "-q", "-t", name, "-b", str(bits), "-N", "", "-C", "a b", "-f", path], check=True)
    line = path.with_suffix(".pub").read_text()
    assert key_line(line) == line.removesuffix(" a b\n")
    block = subprocess.run(["ssh-keygen", "-e", "-f", path], capture_output=True, text=True, check=True).stdout
    assert block.startswith("---- BEGIN SSH2 PUBLIC KEY ----\nComment: ")
    assert key_line(block) == line.removesuffix(" a b\n")
    continued = block.replace("Comment: ", 'Subject: a\\\nfter all\nx-private: "AAAA\\\nBBBB"\nComment: ')
    assert key_line(continued) == line.removesuffix(" a b\n")


@pytest.mark.parametrize(("bits", "taken"), [(1024, False), (2047, False), (2048, True), (4096, True), (4104, False)])
def test_rsa_sizes(bits, taken):
    """2048 to 4096 bits, both included."""
    modulus = (1 << bits - 1) + 1
    line = openssh(rsa.RSAPublicNumbers(65537, modulus).public_key())
    if taken:
        assert key_line(line) == line
    else:
        with pytest.raises(KeyProblem, match=f"the key has {bits} bits; 2048 to 4096 are taken"):
            key_line(line)


def _rsa_line(exponent, modulus):
    fields = [b"ssh-rsa", exponent, modulus]
    blob = b"".join(len(field).to_bytes(4, "big") + field for field in fields)
    return f"ssh-rsa {base64.b64encode(blob).decode()}"


GOOD_MODULUS = b"\x00\xc0" + b"\x01" * 255


@pytest.mark.parametrize(
    ("exponent", "modulus"),
    [
        (b"\x01\x00\x01", GOOD_MODULUS[1:]),
        (b"\x01\x00\x01", b"\x00" + GOOD_MODULUS),
        (b"\x00\x01\x00\x01", GOOD_MODULUS),
        (b"", GOOD_MODULUS),
        (b"\x01", GOOD_MODULUS),
        (b"\x02", GOOD_MODULUS),
        (b"\x01\x00\x01", GOOD_MODULUS[:-1] + b"\x02"),
        (b"\x01" * 33, GOOD_MODULUS),
    ],
)
def test_malformed_rsa_numbers_are_refused(exponent, modulus):
    """Negative, padded, missing, even or absurd numbers."""
    assert key_line(_rsa_line(b"\x01\x00\x01", GOOD_MODULUS))
    with pytest.raises(KeyProblem) as caught:
        key_line(_rsa_line(exponent, modulus))
    assert caught.value.kind == "RSA"


def test_a_line_has_one_form():
    """Base64 with bits that do not count would be another text for the same key."""
    with pytest.raises(KeyProblem, match="canonical"):
        key_line("ssh-ed25519 " + base64.b64encode(b"\0" * 52).decode()[:-2] + "B=")


def test_fixture_worlds_agree():
    """The push is refused with the World's own instance taken away, so the tests above met a real one."""
    world = small_world()
    without = msgspec.structs.replace(world, instances=world.instances[1:])
    with pytest.raises(ApiError, match="was not found"):
        SEND.run(call(without))
