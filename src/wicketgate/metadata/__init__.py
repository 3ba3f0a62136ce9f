"""Instance metadata (IMDSv2) at 169.254.169.254: one unprivileged process for the instances of all VPCs.

netd opens a listening socket in each VPC's router namespace and passes it here. Who asks is known by the VPC of the
socket and the address of the peer: the fabric's source check lets nobody connect under the address of another.
"""
