"""Files that list machines: what becomes of each row, and every line that is wrong."""

import pytest

from wicketgate.client import machines
from wicketgate.client.inventory import MAX_ROWS, Row, Wrong, format_of, read
from wicketgate.model import EXTERNAL_IMAGE


def rows_of(text, kind):
    """The rows of a file in which nothing is wrong."""
    found = read(text, kind)
    assert found.wrong == []
    return found.rows


def test_the_image_is_the_models():
    """The client imports no model: it has the id once more."""
    assert machines.EXTERNAL_IMAGE == EXTERNAL_IMAGE


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("hosts.csv", "csv"),
        ("HOSTS.CSV", "csv"),
        ("hosts", "ini"),
        ("a.ini", "ini"),
        ("a.yml", "yaml"),
        ("a.yaml", "yaml"),
    ],
)
def test_formats_by_name(name, kind):
    """As Ansible tells them."""
    assert format_of(name) == kind


# -- CSV ---------------------------------------------------------------------------------------------------------------

CSV = """\ufeffname,address,subnet,groups,tags,Owner
db-1,10.9.0.11,subnet-1,sg-1 sg-2,Stage=test; Rack=4 ,ann

# a comment
"web, the first",FD00::0:12,,web;sg-3,,
"""


def test_csv():
    """Columns in any order, quoted cells, addresses made canonical, other columns as tags."""
    assert rows_of(CSV, "csv") == [
        Row(2, "10.9.0.11", "db-1", "subnet-1", ("sg-1", "sg-2"), {"Stage": "test", "Rack": "4", "Owner": "ann"}),
        Row(5, "fd00::12", "web, the first", "", ("web", "sg-3"), {}),
    ]


def test_an_address_alone_is_enough():
    """All other columns may be missing."""
    assert rows_of("address\n10.9.0.1\n", "csv") == [Row(2, "10.9.0.1")]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("", [(1, "there is no header: address,name,subnet,groups")]),
        ("name,adress\na,b\n", [(1, "the header has no column address: name,adress")]),
        ("address,name,name\n", [(1, "the column 'name' stands in the header twice")]),
        ("address,\n10.0.0.1,x\n", [(1, "a column of the header has no name")]),
        ("address,name\n10.0.0.1\n", [(2, "1 cells, and the header has 2")]),
        (
            "address\nhost\n10.0.0.1\n10.0.0.300\n",
            [(2, "'host' is no IP address"), (4, "'10.0.0.300' is no IP address")],
        ),
        ("address,name\n,x\n", [(2, "there is no address")]),
        ("address,tags\n10.0.0.1,Stage\n", [(2, "the tag 'Stage' is not KEY=VALUE")]),
        ("address\n10.0.0.1\n10.0.0.2\n10.0.0.1\n", [(4, "10.0.0.1 stands in line 2 already")]),
        ("address,name,Name\n10.0.0.1,a,b\n", [(2, "it has two names, a and, as the tag Name, b")]),
        ('address\n"10.0.0.1\n', [(2, "no CSV: unexpected end of data")]),
    ],
)
def test_what_is_wrong_in_csv(text, wrong):
    """Every wrong line is named, with why."""
    assert read(text, "csv").wrong == [Wrong(*one) for one in wrong]


def test_the_tag_name_is_the_name():
    """However it is given: else the same file would find each machine otherwise than it registered it."""
    named = [Row(2, "10.0.0.1", "a")]
    assert rows_of("address,Name\n10.0.0.1,a\n", "csv") == named
    assert rows_of("address,tags\n10.0.0.1,Name=a\n", "csv") == named
    assert rows_of("address,name,Name\n10.0.0.1,a,a\n", "csv") == named


def test_an_address_may_be_in_two_subnets():
    """VPCs may have the same range."""
    assert len(rows_of("address,subnet\n10.0.0.1,subnet-1\n10.0.0.1,subnet-2\n", "csv")) == 2


# -- INI ---------------------------------------------------------------------------------------------------------------

INI = """
; hosts in no group first
10.9.0.5
gate ansible_host=10.9.0.6 ansible_user="the admin"  # a comment

[web]
web[01:03].example ansible_host=10.9.0.2
[db]
n[a:c:2] ansible_host=fd00::1 wicketgate_groups=sg-own
10.9.1.[8:9]
[prod:children]
web
db
[db:vars]
wicketgate_groups=sg-db sg-all
wicketgate_subnet = "subnet-2"
[prod:vars]
wicketgate_groups=sg-prod
[all:vars]
wicketgate_subnet=subnet-1
"""


def test_ini():
    """Ranges, groups of groups, variables of which the narrower hold, groups as tags."""
    found = read(INI, "ini")
    assert [(row.line, row.address, row.name) for row in found.rows] == [
        (3, "10.9.0.5", "10.9.0.5"),
        (4, "10.9.0.6", "gate"),
        *((7, "10.9.0.2", f"web0{number}.example") for number in (1, 2, 3)),
        (9, "fd00::1", "na"),
        (9, "fd00::1", "nc"),
        (10, "10.9.1.8", "10.9.1.8"),
        (10, "10.9.1.9", "10.9.1.9"),
    ]
    by_name = {row.name: row for row in found.rows}
    assert by_name["gate"][3:] == ("subnet-1", (), {})
    assert by_name["web02.example"][3:] == ("subnet-1", ("sg-prod",), {"ansible:prod": "", "ansible:web": ""})
    assert by_name["na"][3:] == ("subnet-2", ("sg-own",), {"ansible:db": "", "ansible:prod": ""})
    assert by_name["10.9.1.8"].groups == ("sg-db", "sg-all")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("[web:hosts:x]\n", [(1, "[web:hosts:x] is no section: [G], [G:children] or [G:vars]")]),
        ("[web]\nhost\n", [(2, "host host has no ansible_host, and is no IP address itself")]),
        ("host ansible_host=there\n", [(1, "host host: ansible_host 'there' is no IP address")]),
        ("host ansible_host\n", [(1, "'ansible_host' is no variable: NAME=VALUE")]),
        ("host 'x\n", [(1, '"host \'x": No closing quotation')]),
        ("[web:vars]\nx\n", [(2, "'x' is no variable: NAME=VALUE")]),
        ("a ansible_host=10.0.0.1\nb ansible_host=10.0.0.1\n", [(2, "10.0.0.1 stands in line 1 already")]),
        ("10.[0:9].[0:99].[1:99]\n", [(1, "10.[0:9].[0:99].[1:99] makes more than 10000 hosts")]),
        ("h[1:2] ansible_host=10.0.0.1\n", [(1, "10.0.0.1 stands in line 1 already")]),
        ("10.0.0.[9:1]\n", [(1, "the range 10.0.0.[9:1] ends before it begins")]),
    ],
)
def test_what_is_wrong_in_ini(text, wrong):
    """Every wrong line is named, with why."""
    assert read(text, "ini").wrong == [Wrong(*one) for one in wrong]


def test_as_many_hosts_as_there_may_be():
    """Named again, in another group, they are no more."""
    rows = rows_of("[a]\n10.0.[0:99].[0:99]\n[b]  # some of them\n10.0.0.1\n", "ini")
    assert len(rows) == MAX_ROWS
    assert [row.line for row in rows if "ansible:b" in row.tags] == [2]


def test_groups_within_each_other_end():
    """A circle of groups is walked once."""
    (row,) = rows_of("[a:children]\nb\n[b:children]\na\n[b]\n10.0.0.1\n", "ini")
    assert row.tags == {"ansible:a": "", "ansible:b": ""}


# -- YAML --------------------------------------------------------------------------------------------------------------

YAML = """\
all:
  vars:
    wicketgate_subnet: subnet-1
  hosts:
    gate: {ansible_host: 10.9.0.6, ansible_port: 22}
  children:
    web:
      hosts:
        10.9.0.[2:3]:
    db:
      vars: {wicketgate_groups: [sg-db, sg-all]}
      hosts:
        n1:
          ansible_host: fd00::1
      children:
        spare:
"""


def test_yaml():
    """The same as INI says, in the other form."""
    pytest.importorskip("yaml")
    assert rows_of(YAML, "yaml") == [
        Row(5, "10.9.0.6", "gate", "subnet-1"),
        Row(9, "10.9.0.2", "10.9.0.2", "subnet-1", (), {"ansible:web": ""}),
        Row(9, "10.9.0.3", "10.9.0.3", "subnet-1", (), {"ansible:web": ""}),
        Row(13, "fd00::1", "n1", "subnet-1", ("sg-db", "sg-all"), {"ansible:db": ""}),
    ]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("all: [\n", 2, "no YAML: "),
        ("- 10.0.0.1\n", 1, "the inventory is no mapping"),
        ("all:\n  host:\n    a:\n", 2, "'host' of the group all is not hosts, children or vars"),
        ("all:\n  hosts: [a]\n", 2, "hosts of all is no mapping"),
        ("all:\n  hosts:\n    a:\n", 3, "host a has no ansible_host"),
        ("[" * 5000, 1, "no YAML: "),
        ("a: &x\n  children:\n    b:\n      children:\n        a: *x\n", 5, "the group a is within itself"),
    ],
)
def test_what_is_wrong_in_yaml(text, line, words):
    """Every wrong line is named, with why."""
    found = read(text, "yaml").wrong
    assert [one.line for one in found] == [line]
    assert found[0].words.startswith(words)
