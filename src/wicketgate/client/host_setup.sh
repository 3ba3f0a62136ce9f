# -- how; the same for every machine -----------------------------------------------------------------------------------

user=wicketgate-keys
usr_local=${WICKETGATE_USR_LOCAL:-/usr/local}
place=$usr_local/libexec/wicketgate
files=/etc/wicketgate/machine
sshd_config=${SSHD_CONFIG:-/etc/ssh/sshd_config}
drop_ins=${sshd_config%/*}/sshd_config.d
drop_in=$drop_ins/10-wicketgate.conf
command="$place/wicketgate_keycommand.py $options"

say() { printf 'host-setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }

# sshd's word on its configuration. Where its privilege separation directory is made by what starts it, it has to be
# there for the question, too.
ask_sshd() {
    if [ -d /run ] && [ ! -e /run/sshd ] && "$sshd" -t -f "$sshd_config" 2>&1 | grep -q 'separation directory: /run/sshd'
    then
        mkdir -m 755 /run/sshd
        code=0
        "$sshd" "$@" -f "$sshd_config" || code=$?
        rmdir /run/sshd
        return $code
    fi
    "$sshd" "$@" -f "$sshd_config"
}

effective() { # KEYWORD: what it is for a user that no Match block names
    ask_sshd -T -C "user=$user,host=localhost,addr=127.0.0.1" 2>/dev/null | sed -n "s/^$1 //p"
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
    file=$(effective pidfile)
    if [ -s "$file" ] && kill -HUP "$(cat "$file")" 2>/dev/null; then
        return 0
    fi
    say "no sshd is running; it reads its configuration when it starts"
}

# -- before anything is changed ----------------------------------------------------------------------------------------

find_python() {
    for python in /usr/bin/python3 /usr/bin/python3.[0-9]* /usr/local/bin/python3 /usr/local/bin/python3.[0-9]*; do
        if [ -x "$python" ] && "$python" -IS -c 'import ssl, sys, threading; sys.exit(sys.version_info < (3, 9))' 2>/dev/null
        then
            return 0
        fi
    done
    return 1
}

includes() { # whether the configuration reads the drop-ins, outside of any Match block
    awk -v wanted="$drop_ins/*.conf" '
        tolower($1) == "match" { exit }
        tolower($1) == "include" {
            for (i = 2; i <= NF; i++) { gsub(/"/, "", $i); if ($i == wanted || "/etc/ssh/" $i == wanted) found = 1 }
        }
        END { exit !found }' "$sshd_config"
}

look() {
    [ "$(id -u)" = 0 ] || die "this has to be run as root, for example by: sudo sh FILE. Nothing was changed."
    sshd=$(command -v sshd) || die "there is no sshd on this machine. Nothing was changed."
    find_python || die "Python 3.9 or later is needed (/usr/bin/python3). Nothing was changed."
    said=$(ask_sshd -t 2>&1) || die "sshd does not take its own configuration as it is: $said. Nothing was changed."
    # sshd runs no command that others than root could have written (sshd_config(5), AuthorizedKeysCommand).
    one=$place
    while [ -n "$one" ]; do
        if [ -n "$(find -H "$one" -maxdepth 0 \( -perm -0020 -o -perm -0002 -o ! -user 0 \) 2>/dev/null)" ]; then
            die "sshd takes no command from below $one, which others than root may write: set WICKETGATE_USR_LOCAL" \
                "to a directory of root's in the place of $usr_local. Nothing was changed."
        fi
        one=${one%/*}
    done
    now=$(effective authorizedkeyscommand)
    case $now in
    "$command %u %f" | "$place/"* | none | '') ;;
    *) die "sshd has an AuthorizedKeysCommand already, which is left as it is: $now. Nothing was changed." ;;
    esac
    needs_drop_in=1
    if [ "$now" = "$command %u %f" ] && [ ! -e "$drop_in" ]; then
        needs_drop_in= # the lines were added by hand
    elif ! includes; then
        die "$sshd_config does not read $drop_ins/*.conf. Add these two lines to it, before any Match, and run this" \
            "again; nothing was changed.
AuthorizedKeysCommand $command %u %f
AuthorizedKeysCommandUser $user"
    fi
}

# -- changing, so that it can be put back ------------------------------------------------------------------------------

make_directory() {
    if [ ! -d "$1" ]; then
        mkdir -m 755 "$1"
        printf 'directory %s\n' "$1" >>"$work/made"
    fi
}

make_user() {
    id "$user" >/dev/null 2>&1 && return 0
    shell=$(command -v nologin) || shell=/bin/false
    if has useradd; then
        useradd --system --user-group --no-create-home --home-dir /nonexistent --shell "$shell" "$user"
    else
        addgroup -S "$user"
        adduser -S -D -H -h /nonexistent -s "$shell" -G "$user" "$user"
    fi
    printf 'user %s\n' "$user" >>"$work/made"
}

remove_user() {
    if has userdel; then userdel "$user"; else deluser "$user"; fi || say "the user $user could not be removed"
    if has groupdel; then groupdel "$user" 2>/dev/null || :; else delgroup "$user" 2>/dev/null || :; fi
}

put() { # FILE MODE GROUP: give it the content of $work/new, if it has another one
    chmod "$2" "$work/new"
    chgrp "$3" "$work/new"
    if [ -f "$1" ] && cmp -s "$work/new" "$1" && [ -z "$(find "$1" \( ! -perm "$2" -o ! -user 0 -o ! -group "$3" \))" ]; then
        return 0
    fi
    count=$((count + 1))
    if [ -e "$1" ]; then cp -p "$1" "$work/old.$count"; fi
    printf '%s %s\n' "$count" "$1" >>"$work/journal"
    cp -p "$work/new" "$1.wicketgate-new"
    mv -f "$1.wicketgate-new" "$1"
}

remove_made() { # FILE: what was made, last first: users, and directories if nothing is in them
    sed -n '1!G;h;$p' "$1" | while read -r kind name; do
        case $kind in
        directory) rmdir "$name" 2>/dev/null || : ;;
        user) remove_user ;;
        esac
    done
}

put_back() {
    sed -n '1!G;h;$p' "$work/journal" | while read -r number file; do
        if [ -e "$work/old.$number" ]; then cp -p "$work/old.$number" "$file"; else rm -f "$file" "$file.wicketgate-new"; fi
    done
    remove_made "$work/made"
    rm -rf "$work"
    say "everything is as it was before."
}

install() {
    umask 077
    work=$(mktemp -d)
    count=0
    : >"$work/journal"
    : >"$work/made"
    trap put_back EXIT
    trap 'exit 1' HUP INT TERM
    make_user
    group=$(id -gn "$user")
    for one in "$usr_local/libexec" "$place" /etc/wicketgate "$files"; do make_directory "$one"; done
    { printf '#!%s -IS\n' "$python" && payload_command; } >"$work/new"
    put "$place/wicketgate_keycommand.py" 755 root
    payload_signer_root >"$work/new"
    put "$files/ssh-root.pem" 644 root
    if [ -n "$has_ca" ]; then
        payload_ca >"$work/new"
        put "$files/ca.pem" 644 root
    fi
    payload_credential >"$work/new"
    put "$files/credential" 640 "$group"
    payload_undo >"$work/new"
    put "$place/undo" 755 root
    if [ -n "$needs_drop_in" ]; then
        make_directory "$drop_ins"
        printf '# By wicketgate host-setup for %s; %s removes it.\nAuthorizedKeysCommand %s %%u %%f\nAuthorizedKeysCommandUser %s\n' \
            "$instance" "$place/undo" "$command" "$user" >"$work/new"
        put "$drop_in" 644 root
    fi
    if has restorecon; then restorecon -RF "$place" "$files" "$drop_ins" 2>/dev/null || :; fi
    said=$(ask_sshd -t 2>&1) || die "sshd does not take the configuration: $said"
    [ "$(effective authorizedkeyscommand)" = "$command %u %f" ] && [ "$(effective authorizedkeyscommanduser)" = "$user" ] ||
        die "sshd goes by another AuthorizedKeysCommand or AuthorizedKeysCommandUser, which stands before $drop_in"
    grep -qsxF "config $sshd_config" "$place/made" || printf 'config %s\n' "$sshd_config" >>"$work/made"
    if [ -s "$place/made" ]; then cat "$place/made" "$work/made" >"$work/new"; else cp "$work/made" "$work/new"; fi
    put "$place/made" 644 root
    if grep -q " $drop_in\$" "$work/journal"; then reload; fi
    trap - EXIT
}

finish() {
    if [ -s "$work/journal" ]; then
        say "done: sshd asks for keys pushed for $instance. To undo it: $place/undo"
    else
        say "nothing to do: all is as it should be."
    fi
    rm -rf "$work"
    # A try, for a user for whom nothing was pushed: what it says is what the log would have.
    # shellcheck disable=SC2086 # the options are words
    said=$("$place/wicketgate_keycommand.py" $options root 2>&1 >/dev/null) || :
    if [ -n "$said" ]; then say "but no key can be asked for yet: $said"; fi
}

main() {
    look
    install
    finish
}

# Called when all of this has been read: what arrives in part does nothing.
main "$@" </dev/null
