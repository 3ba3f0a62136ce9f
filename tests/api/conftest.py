"""API tests: a real deployment each session, called from outside by the stock SDK. Run inside the sandbox."""

import pytest

from tests.api.deployment import deployed


@pytest.fixture(scope="session")
def deployment():
    """A deployment with generous quotas, shared by the session: tests make their own VPCs and users."""
    quotas = {"vpcs_per_region": 1000, "endpoints_per_region": 100, "prefix_lists_per_region": 1000}
    with deployed("shared", groups_per_interface=6, **quotas) as made:
        yield made


@pytest.fixture(scope="module")
def alone(deployment):
    """The session's own deployment stands aside: there is one netd in a network namespace."""
    deployment.stop()
    yield
    deployment.start()


@pytest.fixture(scope="session")
def ec2(deployment):
    """An EC2 client with the root credential."""
    return deployment.client("ec2")


@pytest.fixture(scope="session")
def iam(deployment):
    """An IAM client with the root credential."""
    return deployment.client("iam")


@pytest.fixture(scope="session")
def plain(deployment):
    """An EC2 client with the root credential that sends whatever it is given."""
    return deployment.client("ec2", parameter_validation=False)
