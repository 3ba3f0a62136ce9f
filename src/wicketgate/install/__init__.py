"""Installing on a host that runs systemd: what is wanted there, and making it so.

`plan` is pure: settings in, an ordered list of things that should be there out. `carry` compares each of them with
what is there and makes what differs; in a dry run it says the same and makes nothing. `host` knows this machine:
whether it can run wicketgate at all, its accounts, its systemd. `switch` restarts processes so that no tunnel is cut;
`remove` takes away what the manifest says was made; `work` is the verbs, made of all these.
"""

from wicketgate.install.carry import Site, carry_out
from wicketgate.install.manifest import Manifest, read_manifest, write_manifest
from wicketgate.install.plan import Account, Choice, Directory, Gone, Handed, Link, TextFile, Thing, plan

__all__ = [
    "Account",
    "Choice",
    "Directory",
    "Gone",
    "Handed",
    "Link",
    "Manifest",
    "Site",
    "TextFile",
    "Thing",
    "carry_out",
    "plan",
    "read_manifest",
    "write_manifest",
]
