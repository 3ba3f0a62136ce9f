#!/bin/bash
# The inside of test_install.py: mounts of a system of its own, pivot_root, the package, then the scenario. Network,
# mounts and process ids are already private.
set -euo pipefail
tree=$1
mount --bind "$tree" "$tree"
mount -t proc proc "$tree/proc"
mount -t sysfs sysfs "$tree/sys"
mount -t tmpfs -o mode=755 tmpfs "$tree/run"
mount -t tmpfs -o mode=755 tmpfs "$tree/dev"
mkdir "$tree/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$tree/dev/shm"
ln -s /proc/self/fd "$tree/dev/fd"
for device in null zero full random urandom; do
    : >"$tree/dev/$device"
    mount --bind /dev/$device "$tree/dev/$device"
done
mkdir -p "$tree/mnt/old"
cd "$tree"
pivot_root . mnt/old
cd /
umount -l /mnt/old
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 HOME=/root bash -euc '
    ip link set lo up
    mkdir -p /run/netns /run/systemd/system /var/log/units
    echo "127.0.0.1 localhost api.gate.test" >>/etc/hosts
    install -m 755 /root/unit_runner.py /usr/local/bin/systemctl
    sed -i "1i #!/usr/bin/python3" /usr/local/bin/systemctl
    python3 /root/unit_runner.py serve /root/filters.json &
    dpkg -i /root/wicketgate.deb
    code=0
    /usr/lib/wicketgate/bin/python /root/scenario.py wicketgate || code=$?
    grep -h -B3 -A25 "Logging error" /var/log/units/* >&2 || true
    [ $code = 0 ] || {
        tail -n 15 /var/log/units/* >&2
        exit $code
    }
'
