#!/usr/bin/env bash
# Makes the Debian package twice, the second time as a newer version, and puts it through
# install, upgrade, remove and purge in a Debian made by debootstrap. Needs root and network.
#
#	packaging/check.sh [FOLDER]    where the Debian is made; it is kept for the next time
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=${1:-/var/tmp/kingbus-deb-check}

say() { printf '== %s\n' "$*"; }
fail() { printf 'deb-check: %s\n' "$*" >&2; exit 1; }

. packaging/debian.sh
debian "$root"
in_root() { chroot "$root" env DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"; }

# Whatever an earlier run has left.
in_root dpkg --purge kingbus >/dev/null 2>&1 || true
rm -rf "$root/var/lib/kingbus"

rm -f bin/kingbus_*.deb
make --no-print-directory deb DEB_VERSION=1.0.0 >/dev/null
make --no-print-directory deb DEB_VERSION=1.0.1 >/dev/null
cp bin/kingbus_1.0.0_*.deb "$root/old.deb"
cp bin/kingbus_1.0.1_*.deb "$root/new.deb"

say install
in_root dpkg --install /old.deb
in_root kingbus version
[ "$(in_root stat -c %U:%G:%a /var/lib/kingbus)" = kingbus:kingbus:750 ] || fail "/var/lib/kingbus is $(in_root stat -c %U:%G:%a /var/lib/kingbus)"
in_root kingbus config check /etc/kingbus/kingbus.yaml

say "the unit, and its ExecStart by hand"
unit=$(mktemp -d)/kingbus.service # verified where systemd is, with the program where it is
sed "s#^ExecStart=/usr/bin/#ExecStart=$PWD/bin/#" packaging/kingbus.service >"$unit"
complaints=$(systemd-analyze verify "$unit" 2>&1) || fail "systemd-analyze verify: $complaints"
[ -z "$complaints" ] || fail "systemd-analyze verify: $complaints"
start=$(sed -n 's/^ExecStart=//p' "$root/usr/lib/systemd/system/kingbus.service")
chroot --userspec=kingbus:kingbus "$root" $start >"$root/serve.log" 2>&1 &
pid=$!
for i in $(seq 100); do
	grep -q 'msg=ready' "$root/serve.log" && break
	[ "$i" != 100 ] || fail "it does not get ready: $(cat "$root/serve.log")"
	sleep 0.1
done
chroot --userspec=kingbus:kingbus "$root" kingbus status
kill "$pid"
wait "$pid" || fail "it ended with $?"

say upgrade
echo '# changed by hand' >>"$root/etc/kingbus/kingbus.yaml"
in_root dpkg --install /new.deb
grep -q 'changed by hand' "$root/etc/kingbus/kingbus.yaml" || fail "the settings were overwritten"
[ "$(in_root dpkg-query -W -f '${Version}' kingbus)" = 1.0.1 ] || fail "it is not the new version"

say remove
in_root dpkg --remove kingbus
[ ! -e "$root/usr/bin/kingbus" ] || fail "the program is still there"
[ -e "$root/etc/kingbus/kingbus.yaml" ] || fail "the settings are gone before a purge"
in_root dpkg --purge kingbus
[ ! -e "$root/etc/kingbus/kingbus.yaml" ] || fail "the settings are there after a purge"
[ -e "$root/var/lib/kingbus/node" ] || fail "a purge has removed the binlog"
say "all of it is as it should be"
