# Makes the minimal Debian in which check.sh and operations.sh install the package; to be sourced
# by a script that has fail and say. It needs root, debootstrap and, the first time, network.

# debian DIR: a Debian in DIR, with what the commands of docs/operations.md use beside kingbus and
# MySQL. It is kept for the next time.
debian() {
	local root=$1 include=openssl,curl mirror
	[ "$(id -u)" = 0 ] || fail "this needs root, for debootstrap and chroot"
	[ -e "$root/usr/share/kingbus-check-$include" ] && return
	command -v debootstrap >/dev/null || fail "install debootstrap"
	say "a minimal Debian in $root"
	mirror=$(apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(RELEASE)' | awk '$2 == "main" && $3 !~ /security/ { print $1; exit }')
	rm -rf "$root"
	debootstrap --variant=minbase --include="$include" trixie "$root" "$mirror" >"$root.log" 2>&1 || fail "debootstrap: $(tail -5 "$root.log")"
	rm -f "$root.log"
	touch "$root/usr/share/kingbus-check-$include"
}
