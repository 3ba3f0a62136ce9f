"""The processes without `Serve`: each one a unit of systemd's, which makes their sockets and starts them again.

    python -P -m wicketgate.units netd               root
    python -P -m wicketgate.units api                wicketgate-api
    python -P -m wicketgate.units gateway INSTANCE   wicketgate-gateway; INSTANCE is the unit's %i: a0, a1, b0, ...
    python -P -m wicketgate.units metadata           wicketgate-metadata

    netd, gateways, metadata ── feed.sock ──> api      they follow what the API process commits
    gateways ── api.sock ──> api                       API calls
    gateways ── dial.sock ──> netd <── listen.sock ── metadata

Any of them may start, end and start again at any time: who needs another one connects to it again. The order netd,
api, gateways only saves waiting.

Sockets that a unit gets (sd_listen_fds(3): LISTEN_PID, LISTEN_FDS, LISTEN_FDNAMES), by FileDescriptorName:

    api       calls    /run/wicketgate/api.sock     stream           wicketgate-gateway   0600
    api       feed     /run/wicketgate/feed.sock    stream           root                 0666 (SO_PEERCRED tells who)
    gateway   tls      TCP, one for each listening address; all instances share them
    netd      dial     /run/wicketgate/dial.sock    SOCK_SEQPACKET   wicketgate-gateway   0600
    netd      listen   /run/wicketgate/listen.sock  SOCK_SEQPACKET   wicketgate-metadata  0600

Settings come from /etc/wicketgate/wicketgate.toml, or the file that WICKETGATE_CONFIG names; no other variable is
needed. Credentials (systemd.exec(5) LoadCredential=, CREDENTIALS_DIRECTORY):

    api       root-credential            needed; the form of an AWS credentials file
    gateway   certificate, private-key   the operator's PEM files, if `certificate_file` is set; else the API process
                                         gives its own

Directories, which have to be there (STATE is the setting `state_directory`):

    STATE                root                                0755
    STATE/netd           root                                0700   slots, counters, the copy of the World for boot
    STATE/store          wicketgate-api                      0700   and the file `key_file`, if set, has to be api's
    STATE/audit          root                                0755
    STATE/audit/api      wicketgate-api                      0700   api.jsonl
    STATE/audit/gateway  wicketgate-gateway:wicketgate-api   2750   gateway-INSTANCE.jsonl, 0640
    STATE/public         wicketgate-api                      0755   ca.pem, bundle.pem, ssh-root.pem, ssh-signer.pem
    /run/wicketgate      root                                0755   the sockets; netd writes observations.json
    /run/netns           root                                0755   netd's, as the host sees it

Signals: SIGTERM ends each in order. SIGHUP: api and gateways open their audit files anew (rename first, then signal),
netd reads `links_file` again. SIGUSR1 drains a gateway: it accepts no more, and ends with 0 when its last connection
has ended. Standard error is the log. What cannot start says why in one line and ends with 1.

With Type=notify (sd_notify(3)) netd is ready when the kernel enforces its copy of the World, api when it takes calls,
metadata when it has begun to follow, and a gateway when it takes connections, for which it needs api.
"""
