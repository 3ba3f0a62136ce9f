"""A PostgreSQL server on a machine, and psql in the office: once the setting offers its port."""

import hashlib

import pytest

PORT, LOCAL_PORT = 5432, 15432
ROWS = 100_000
PASSWORD = "not-a-secret"


@pytest.fixture(scope="module")
def server(reach):
    """A machine with a PostgreSQL server."""
    host = reach.hosts[6]
    host.serve_postgresql(PASSWORD)
    return host


@pytest.fixture(scope="module")
def offered(reach, server):
    """The setting that offers PostgreSQL's port, in force."""
    reach.restart(allowed_ports=(22, 3389, PORT))
    yield server
    reach.restart()


def _psql(reach, *words, **options):
    command = ["psql", "-h", "127.0.0.1", "-p", str(LOCAL_PORT), "-U", "postgres", "-X", "-q", "-A", "-t"]
    return reach.run(*command, "-v", "ON_ERROR_STOP=1", *words, environment={"PGPASSWORD": PASSWORD}, **options)


@pytest.mark.parametrize("program", ["aws", "wicketgate"])
def test_port_that_is_not_offered(reach, server, program):
    """Before the setting has it the port is refused in words, whatever the groups allow; the server hears nothing."""
    done = reach.run(*reach.tunnel(program, server.address, PORT), check=False)
    assert done.returncode != 0
    assert "RemotePort" in done.stderr
    assert "connection received" not in (server.directory / "postgres.log").read_text()


@pytest.mark.parametrize("program", ["aws", "wicketgate"])
def test_psql(reach, offered, program, tmp_path):
    """100,000 rows go in by \\copy and come back the same; the server saw the endpoint's address."""
    rows = "".join(f"{number}\t{hashlib.md5(str(number).encode()).hexdigest()}\n" for number in range(ROWS))
    (tmp_path / "rows").write_text(rows)
    name = f"rows_{program}"
    with reach.listening(LOCAL_PORT, *reach.tunnel(program, offered.address, PORT, local_port=LOCAL_PORT)):
        _psql(reach, "-c", f"create table {name} (number integer primary key, digest text not null)")
        _psql(reach, "-c", f"\\copy {name} from '{tmp_path}/rows'")
        check = f"select count(*), sum(number), count(*) filter (where digest = md5(number::text)) from {name}"
        counted = _psql(reach, "-c", check).stdout.strip()
        assert counted == f"{ROWS}|{ROWS * (ROWS - 1) // 2}|{ROWS}"
        _psql(reach, "-c", f"\\copy (select * from {name} order by number) to '{tmp_path}/back'")
        assert _psql(reach, "-c", "select host(inet_client_addr())").stdout.strip() == reach.source
    assert (tmp_path / "back").read_text() == rows
    assert f"connection received: host={reach.source} " in (offered.directory / "postgres.log").read_text()
