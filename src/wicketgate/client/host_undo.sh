#!/bin/sh
# Undoes what wicketgate host-setup did on this machine, and nothing else. Run as root.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin
export PATH

user=wicketgate-keys
place=$(cd "${0%/*}" && pwd)
files=/etc/wicketgate/machine

say() { printf 'host-setup: %s\n' "$*" >&2; }
has() { command -v "$1" >/dev/null 2>&1; }

remove_user() {
    if has userdel; then userdel "$user"; else deluser "$user"; fi || say "the user $user could not be removed"
    if has groupdel; then groupdel "$user" 2>/dev/null || :; else delgroup "$user" 2>/dev/null || :; fi
}

reload() {
    if [ -d /run/systemd/system ] && has systemctl; then
        for unit in ssh.service sshd.service; do
            if systemctl is-active --quiet "$unit"; then
                systemctl reload "$unit" || say "$unit could not be reloaded: do that yourself"
                return 0
            fi
        done
    elif [ -d /run/openrc ] && has rc-service && rc-service --quiet sshd status; then
        rc-service sshd reload || say "sshd could not be reloaded: do that yourself"
        return 0
    fi
    file=$(sshd -T -f "$sshd_config" -C "user=$user,host=localhost,addr=127.0.0.1" 2>/dev/null | sed -n 's/^pidfile //p')
    if [ -s "$file" ]; then kill -HUP "$(cat "$file")" 2>/dev/null || :; fi
}

main() {
    if [ "$(id -u)" != 0 ]; then
        say "this has to be run as root. Nothing was changed."
        exit 1
    fi
    made=$(sed -n '1!G;h;$p' "$place/made")
    sshd_config=$(printf '%s\n' "$made" | sed -n 's/^config //p')
    drop_in=${sshd_config%/*}/sshd_config.d/10-wicketgate.conf
    if [ -e "$drop_in" ]; then
        rm -f "$drop_in"
        reload # before the command is gone, so that no login asks for it in vain
    elif grep -qs "$place/wicketgate_keycommand.py" "$sshd_config"; then
        say "remove the AuthorizedKeysCommand and AuthorizedKeysCommandUser of wicketgate from $sshd_config yourself"
    fi
    rm -f "$files/credential" "$files/ssh-root.pem" "$files/ca.pem"
    rm -f "$place/wicketgate_keycommand.py" "$place/made" "$place/undo"
    printf '%s\n' "$made" | while read -r kind name; do
        case $kind in
        directory) rmdir "$name" 2>/dev/null || : ;;
        user) remove_user ;;
        esac
    done
    say "undone."
}

main "$@" </dev/null
