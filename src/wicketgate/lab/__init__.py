"""The lab: two VPCs, real sshd's and two clients on one machine, always inside namespaces of their own."""
