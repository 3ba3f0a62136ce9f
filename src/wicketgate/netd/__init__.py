"""netd, the privileged process: owns the fabrics, dials, grants tunnel slots. It faces no network.

It reads nothing that the network side writes but dial requests, over socketpairs that `serve` made, and checks each one
against its own World: the gateway decides *who* (signature, IAM); what may be dialled, and how often, is decided here
again.
"""
