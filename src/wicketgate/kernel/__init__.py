"""The driver of the Linux kernel: namespaces, links, routes, nftables, transparent sockets. Thin; decides nothing."""
