"""A machine that wicketgate did not make: its own /etc, /usr/local and sshd, on the network of an instance.

It has a second way out, to the gateway's port 443 and nothing else, as a LAN host has.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

GATEWAY, ADDRESS = "198.51.100.1", "198.51.100.2"
KNOWN = ("alternatives", "bash.bashrc", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "login.defs", "profile", "ssl")

_LAY_OUT = r"""
set -eu
mkdir -p "$1/etc" "$1/etc/ssh/sshd_config.d" "$1/usr-local" "$1/home/admin/.ssh" "$1/root/.ssh"
cd /etc
for one in {known}; do [ ! -e "$one" ] || cp -a "$one" "$1/etc/"; done
cd "$1"
printf '%s\n' 'root:x:0:0:root:/root:/bin/sh' 'sshd:x:64911:65534::/run/sshd:/usr/sbin/nologin' \
    'admin:x:1000:1000::/home/admin:/bin/sh' 'nobody:x:65534:65534::/nonexistent:/usr/sbin/nologin' >etc/passwd
printf '%s\n' root:x:0: admin:x:1000: nogroup:x:65534: >etc/group
printf '%s\n' 'root:*:19000::::::' 'admin:*:19000::::::' >etc/shadow
printf '%s\n' 'root:*::' 'admin:*::' 'nogroup:*::' >etc/gshadow
chmod 640 etc/shadow etc/gshadow
printf '%s\n' 'passwd: files' 'group: files' 'shadow: files' 'hosts: files' >etc/nsswitch.conf
printf '%s\n' '127.0.0.1 localhost' '{gateway} api.wicketgate.test' >etc/hosts
ssh-keygen -q -t ed25519 -N '' -f etc/ssh/host_key
cat >etc/ssh/sshd_config <<EOF
Include /etc/ssh/sshd_config.d/*.conf
HostKey /etc/ssh/host_key
PidFile /run/sshd.pid
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin yes
UsePAM no
LogLevel VERBOSE
EOF
for user in root home/admin; do cp "$1/own.pub" "$user/.ssh/authorized_keys"; chmod 700 "$user/.ssh"; done
chown -R 1000:1000 home/admin
mount --bind etc /etc
mount --bind usr-local /usr/local
mount --bind home /home
mount --bind root /root
mkdir -p /run/sshd
echo ready
exec sleep infinity
"""


class Machine:
    """Namespaces with files of their own; `own` is the key that its users have always had."""

    def __init__(self, directory, namespace):
        self.directory, self.namespace = directory, namespace
        self.own = self._key("own")
        self.new_key()
        self._connect()
        script = _LAY_OUT.format(known=" ".join(KNOWN), gateway=GATEWAY)
        inside = ["nsenter", f"--net=/run/netns/{namespace}", "unshare", "--mount", "sh", "-c", script, "-", directory]
        self.holder = subprocess.Popen(inside, stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout.readline() == "ready\n"
        self.log = directory / "sshd.log"
        self.run(f"/usr/sbin/sshd -E {self.log}")

    def _key(self, name):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", self.directory / name], check=True)
        return self.directory / name

    def new_key(self):
        """Have another key to push, one that nobody has pushed."""
        self.pushed = self._key(f"pushed-{time.monotonic_ns()}")

    def _connect(self):
        ip = f"ip -n {self.namespace}"
        subprocess.run(
            f"ip link add lan0 type veth peer name lan0 netns {self.namespace} && ip address add {GATEWAY}/30 dev lan0"
            f" && ip link set lan0 up && {ip} link set lan0 up && {ip} address add {ADDRESS}/30 dev lan0",
            shell=True,
            check=True,
        )

    def close(self):
        """End it."""
        subprocess.run(["ip", "link", "delete", "lan0"], check=True)
        pid = self.run("cat /run/sshd.pid").stdout
        os.kill(int(pid), signal.SIGTERM)
        self.holder.kill()
        self.holder.wait()

    def run(self, script, *, check=True):
        """Run a script on it as root."""
        inside = ["nsenter", "-t", str(self.holder.pid), "--mount", "--net", "sh", "-s"]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        done = subprocess.run(inside, input=script, capture_output=True, text=True, env=environment, check=False)
        assert not check or done.returncode == 0, done
        return done

    def files(self):
        """Every file below /etc and /usr/local with owner, mode and content, but for copies that useradd keeps."""
        listing = r"""find /etc /usr/local -xdev ! -name '*-' ! -name '.pwd.lock' -printf '%p %U %G %m %y\n' | sort
            find /etc /usr/local -xdev -type f ! -name '*-' ! -name '.pwd.lock' -exec sha256sum {} + | sort"""
        return self.run(listing).stdout

    def log_in(self, key, user="admin", seconds=30):
        """Whether the key logs in, and how many seconds that took."""
        options = ["UserKnownHostsFile=/dev/null", "StrictHostKeyChecking=no", "BatchMode=yes", "IdentitiesOnly=yes"]
        options += ["ConnectionAttempts=5"]  # sshd listens to nobody for a moment while it reloads
        words = [word for one in options for word in ("-o", one)]
        began = time.monotonic()
        done = subprocess.run(
            ["ssh", "-F", "none", *words, "-i", key, f"{user}@{ADDRESS}", "id", "-un"],
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        return done.stdout.strip() == user, time.monotonic() - began

    def asks(self, user="admin"):
        """What the key command has to say when it is run as its user, by the line that sshd has."""
        line = self.run("/usr/sbin/sshd -T | sed -n 's/^authorizedkeyscommand \\(.*\\) %u %f$/\\1/p'").stdout.strip()
        return self.run(
            f"setpriv --reuid wicketgate-keys --regid wicketgate-keys --clear-groups {line} {user}", check=False
        )


def public_line(key):
    """The public key's line of a key's file."""
    return Path(f"{key}.pub").read_text().strip()
