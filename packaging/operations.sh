#!/usr/bin/env bash
# Runs docs/operations.md: every block of commands as it is written there, in order, and compares
# what it prints with the block of text behind it. Needs root, and network the first time only.
#
#	packaging/operations.sh [FOLDER]    where the Debian is made; it is kept for the next time
#
# The hosts of that page are made here, in namespaces with which all of it goes away again:
# each has a network of its own on a bridge that leads nowhere else, and a root of its own, a
# Debian on top of which lies what it changes. The package is the real one, installed by dpkg,
# and so are the MySQL 9.7 servers and client programs, which come out of the cache of
# internal/mysqltest. Three things are not real: systemctl runs what ExecStart says, as the user of the
# unit, and starts it again as Restart says; journalctl shows what that wrote; and scp copies into
# the root of another host.
#
# A block of sh or sql says in its first line on which hosts it runs, one after the other: "# on
# k1 k2" or "-- on r1". What is in a comment (<!-- sh … -->) is run and not seen: the world goes on.
# SQL is said to the MySQL server of the host, or if that is a node of kingbus to it, by the account of
# /root/kingbus.cnf on r1. A block of text is all that the last host printed:
# … stands for anything within a line, alone for any lines; blanks count as one. "text until": the commands
# are repeated until that is so. "text fails": they end with an error.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '== %s\n' "$*"; }
fail() { printf 'operations: %s\n' "$*" >&2; exit 1; }
page=docs/operations.md
. packaging/debian.sh

if [ "${1:-}" != inside ]; then
	debian=${1:-/var/tmp/kingbus-debian}
	debian "$debian"
	rm -f bin/kingbus_*.deb
	for version in 1.0.0 1.0.1; do make --no-print-directory deb DEB_VERSION=$version >/dev/null; done
	cache=${KINGBUS_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/kingbus}/mysqltest
	mysql() { find "$cache" -maxdepth 1 -name 'mysql-9.7-*' -type d ! -name '*.tmp' 2>/dev/null | sort | tail -1; }
	[ -n "$(mysql)" ] || { say "MySQL 9.7 into $cache"; go test -count=1 -run '^TestReplication$' ./internal/mysqltest; }
	[ -n "$(mysql)" ] || fail "no MySQL 9.7 in $cache: unset KINGBUS_TEST_MYSQLD, and take mysqld out of PATH"
	# The first process of the new PID namespace: with it, everything that was started ends.
	exec unshare --mount --net --pid --fork --kill-child --mount-proc "$0" inside "$debian" "$(mysql)/root"
fi
debian=$2 mysql=$3
package=$PWD/bin
page=$PWD/$page

# hosts: name, and the end of the address.
hosts="db1:1 k1:11 k2:12 k3:13 r1:21 r2:22"
names() { for h in $hosts; do echo "${h%:*}"; done; }

# on HOST COMMAND…: as root after a login there.
on() {
	local host=$1
	shift
	ip netns exec "$host" unshare --uts sh -c 'hostname "$1" && shift && exec "$@"' sh "$host" \
		chroot "/mnt/$host" env --chdir=/root -i HOME=/root TERM=dumb LANG=C.UTF-8 PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

# put HOST FILE [MODE]: a file there out of the standard input.
put() { mkdir -p "$(dirname "/mnt/$1$2")"; cat >"/mnt/$1$2"; chmod "${3:-644}" "/mnt/$1$2"; }

systemctl() {
	cat <<'END'
#!/bin/bash
# What docs/operations.md needs of systemd, for one service at a time.
verb='' unit='' now=''
for arg; do
	case $arg in --now) now=1 ;; -*) ;; *) if [ -z "$verb" ]; then verb=$arg; else unit=${arg%.service}; fi ;; esac
done
file=/usr/lib/systemd/system/$unit.service state=/run/units/$unit log=/var/log/$unit.journal
mkdir -p /run/units
value() { sed -n "s/^$1=//p" "$file" | tail -1; }
pid() { cat "$state.pid" 2>/dev/null; }
active() { [ -e "$state.pid" ]; }
supervise() {
	while :; do
		user=$(value User)
		(umask "$(value UMask)" && exec env MYSQLD_PARENT_PID=$$ setpriv --reuid "$user" --regid "$user" --init-groups --no-new-privs $(value ExecStart)) &
		child=$!
		echo "$child" >"$state.pid"
		wait "$child"
		code=$?
		echo "$unit.service: ended with $code"
		[ ! -e "$state.stop" ] && [ $code != 0 ] && [[ " $(value RestartPreventExitStatus) " != *" $code "* ]] || break
		sleep "$(value RestartSec)"
		[ ! -e "$state.stop" ] || break
	done
	echo "$code" >"$state.code"
	rm -f "$state.pid"
}
start() {
	active && return
	[ -e "$file" ] || { echo "Unit $unit.service not found." >&2; exit 5; }
	rm -f "$state.stop" "$state.code"
	setsid "$0" supervise "$unit" >>"$log" 2>&1 </dev/null &
	for _ in $(seq 600); do # a MySQL tells systemd when it is ready
		[ -e "$state.code" ] && { echo "Job for $unit.service failed." >&2; exit 1; }
		active && { [ "$unit" != mysql ] || mysqladmin ping >/dev/null 2>&1; } && return
		sleep 0.1
	done
	exit 1
}
stop() {
	touch "$state.stop"
	active && kill "$(pid)"
	while active; do sleep 0.05; done
}
case $verb in
supervise) supervise ;;
start) start ;;
stop) stop ;;
restart) stop; start ;;
try-restart) ! active || { stop; start; } ;;
enable) [ -z "$now" ] || start ;;
disable) [ -z "$now" ] || stop ;;
is-active) if active; then echo active; elif [ "$(cat "$state.code" 2>/dev/null || echo 0)" = 0 ]; then echo inactive; exit 3; else echo failed; exit 3; fi ;;
daemon-reload) ;;
kill) kill -KILL "$(pid)" ;;
*) echo "this systemctl knows no $verb" >&2; exit 1 ;;
esac
END
}

host() { # name, end of the address
	local name=$1 root=/mnt/$1
	mkdir -p "/mnt/over/$name"/{up,work} "$root"
	mount -t overlay "$name" -o "lowerdir=$debian,upperdir=/mnt/over/$name/up,workdir=/mnt/over/$name/work" "$root"
	mount --rbind /dev "$root/dev"
	mount -t proc proc "$root/proc"
	ip netns add "$name"
	ip link add "$name" type veth peer name eth0 netns "$name"
	ip link set "$name" master switch up
	ip -n "$name" link set lo up
	ip -n "$name" address add "10.77.0.$2/24" dev eth0
	ip -n "$name" link set eth0 up
	{ echo "127.0.0.1 localhost"; for h in $hosts; do echo "10.77.0.${h#*:} ${h%:*}"; done; } | put "$name" /etc/hosts
	echo "$name" | put "$name" /etc/hostname
	mkdir -p "$root/run/systemd/system" # systemd runs here
	systemctl | put "$name" /usr/local/sbin/systemctl 755
	printf '#!/bin/bash\nwhile [ $# -gt 0 ]; do case $1 in -u) unit=$2; shift ;; -n) lines=$2; shift ;; esac; shift; done\nexec tail -n "${lines:-+1}" "/var/log/$unit.journal"\n' |
		put "$name" /usr/local/bin/journalctl 755
	# Files, and the last argument is HOST:FOLDER.
	printf '#!/bin/bash\nset -e\nto=${!#}\nexec cp "${@:1:$#-1}" "/srv/hosts/${to%%%%:*}${to#*:}"\n' | put "$name" /usr/local/bin/scp 755
}

mysql_on() { # name: the programs of MySQL, and a service that nobody has started
	local name=$1 root=/mnt/$1 program folder
	mkdir -p "$root/opt/mysql"
	mount --bind "$mysql" "$root/opt/mysql"
	folder=$(basename "$(ls -d "$mysql"/usr/lib/*-linux-gnu)")
	for program in sbin/mysqld bin/mysql bin/mysqladmin bin/mysqldump bin/mysqlbinlog; do
		printf '#!/bin/sh\nexec /opt/mysql/usr/lib64/ld-linux-x86-64.so.2 --library-path /opt/mysql/usr/lib/%s:/opt/mysql/usr/lib/%s/systemd /opt/mysql/usr/%s "$@"\n' \
			"$folder" "$folder" "$program" | put "$name" "/usr/$program" 755
	done
	ln -s /opt/mysql/usr/share/mysql "$root/usr/share/mysql"
	ln -s /opt/mysql/usr/lib/mysql "$root/usr/lib/mysql"
	put "$name" /etc/mysql/my.cnf <<-END
		[mysqld]
		user = mysql
		mysqlx = 0
		innodb_redo_log_capacity = 64M
		innodb_buffer_pool_size = 64M
		!includedir /etc/mysql/conf.d/
	END
	put "$name" /usr/lib/systemd/system/mysql.service <<-END
		[Service]
		ExecStart=/usr/sbin/mysqld
		User=mysql
		UMask=0077
		RestartSec=0.1
		RestartPreventExitStatus=1
	END
	mkdir -p "$root/etc/mysql/conf.d"
	on "$name" useradd --system --user-group --home-dir /var/lib/mysql --no-create-home mysql
	on "$name" install -d -o mysql -g mysql /var/lib/mysql /var/run/mysqld /var/lib/mysql-files
}

world() {
	mount --make-rprivate /
	mount -t tmpfs operations /run
	mount -t tmpfs operations /mnt
	ip link set lo up
	ip link add switch type bridge
	ip link set switch up
	for h in $hosts; do host "${h%:*}" "${h#*:}"; done
	for name in $(names); do
		mkdir -p "/mnt/$name/srv/hosts"
		mount --bind /mnt "/mnt/$name/srv/hosts"
		for other in $(names); do mount --bind "/mnt/$other" "/mnt/$name/srv/hosts/$other"; done
	done
	for name in db1 r1 r2; do mysql_on "$name"; done
	printf '[mysqld]\nserver_id = 1\ngtid_mode = ON\nenforce_gtid_consistency = ON\n' | put db1 /etc/mysql/conf.d/gtid.cnf
	on db1 mysqld --initialize-insecure >/mnt/initialize.log 2>&1 || fail "mysqld --initialize: $(tail -5 /mnt/initialize.log)"
	for name in r1 r2; do # as fresh: each finds a uuid and certificates of its own
		cp -a /mnt/db1/var/lib/mysql "/mnt/$name/var/lib/"
		rm -f "/mnt/$name/var/lib/mysql"/{auto.cnf,*.pem}
	done
	for name in db1 r1 r2; do on "$name" systemctl start mysql & done
	wait
	for name in k1 k2 k3; do
		cp "$package/kingbus_1.0.0_amd64.deb" "/mnt/$name/root/"
		cp "$package/kingbus_1.0.1_amd64.deb" "/mnt/$name/root/"
	done
}

# run KIND HOST TEXT: prints what it prints, and ends as it ends.
run() {
	case $1:$2 in
	sh:*) timeout 120 bash -c "$(declare -f on); on \"\$@\"" sh "$2" bash -lec "$3" ;;
	sql:k*) timeout 120 bash -c "$(declare -f on); on \"\$@\"" sh r1 mysql --defaults-extra-file=/root/kingbus.cnf --host="$2" --commands --table <<<"$3" ;;
	sql:*) timeout 120 bash -c "$(declare -f on); on \"\$@\"" sh "$2" mysql --commands --table <<<"$3" ;;
	esac 2>&1 </dev/null
}

# same WANT GOT: whether what was printed is what the page says.
same() {
	local -a want got
	local i=0 j=0 skip='' pattern
	mapfile -t want < <(sed 's/[ \t]\+/ /g; s/^ //; s/ $//' <<<"$1")
	mapfile -t got < <(sed 's/[ \t]\+/ /g; s/^ //; s/ $//' <<<"$2")
	while [ $i -lt ${#want[@]} ]; do
		if [ "${want[i]}" = … ]; then
			skip=1 i=$((i + 1))
			continue
		fi
		pattern=$(printf '%s' "${want[i]}" | sed 's/[][\\*?]/\\&/g; s/…/*/g')
		while :; do
			[ $j -lt ${#got[@]} ] || return 1
			# shellcheck disable=SC2053 # it is a pattern
			[[ ${got[j]} == $pattern ]] && break
			[ -n "$skip" ] || return 1
			j=$((j + 1))
		done
		i=$((i + 1)) j=$((j + 1)) skip=''
	done
	[ -n "$skip" ] || [ $j = ${#got[@]} ]
}

# judge HOW WANT CODE GOT: whether a block did on a host what the page says.
judge() {
	case $1 in
	'' | until) [ "$3" = 0 ] || return 1 ;;
	fails) [ "$3" != 0 ] || return 1 ;;
	*) fail "$page:$line: what is a \"text $1\"?" ;;
	esac
	[ -z "$2" ] || same "$2" "$4"
}

# perform HOW WANT: runs the block of commands that waits, if there is one.
perform() {
	local host got code wrong deadline=$((SECONDS + 60)) all
	[ -n "$kind" ] || return 0
	while :; do
		all='' wrong=''
		for host in $where; do
			code=0
			got=$(run "$kind" "$host" "$commands") || code=$?
			all+="--- line $line, $kind on $host: $(head -1 <<<"$commands")"$'\n'$got$'\n'
			judge "$1" "$2" "$code" "$got" || { wrong=$host; break; }
		done
		[ -n "$wrong" ] && [ "$1" = until ] && [ $SECONDS -lt $deadline ] || break
		sleep 0.5
	done
	printf '%s' "$all" >>/mnt/log
	if [ -n "$wrong" ]; then
		[ -z "$2" ] || printf 'wanted:\n%s\n\n' "$2" >&2
		printf 'got, with exit code %d:\n%s\n' "$code" "$got" >&2
		fail "$page:$line, $kind on $wrong: it is not as it is written"
	fi
	blocks=$((blocks + 1))
	kind=''
}

play() {
	local text='' state='' n=0 how=''
	kind='' where='' commands='' line=0 blocks=0
	while IFS= read -r text || [ -n "$text" ]; do
		n=$((n + 1))
		case $state:$text in
		:'```sh' | :'```sql' | :'<!-- sh' | :'<!-- sql')
			perform '' ''
			kind=${text##*[\` ]} state=first line=$n commands=''
			;;
		:'```text'*) how=${text#'```text'} how=${how# } state=text commands_text='' ;;
		:'```'*) state=other ;;
		:'## '*) perform '' ''; say "${text#\#\# } (${SECONDS}s)" ;;
		first:'# on '* | first:'-- on '*) where=${text#*on } state=commands ;;
		first:*) fail "$page:$n: the first line of a block of commands says on which hosts: # on k1 k2" ;;
		commands:'```' | commands:'-->' | other:'```') state='' ;;
		commands:*) commands+=$text$'\n' ;;
		text:'```') perform "$how" "${commands_text%$'\n'}"; state='' ;;
		text:*) commands_text+=$text$'\n' ;;
		esac
	done <"$page"
	perform '' ''
	[ -z "$state" ] || fail "$page: the last block has no end"
	say "all $blocks blocks of $page do what it says, in $SECONDS s"
}

world
say "the hosts are up (${SECONDS}s)"
if [ -n "${OPERATIONS_LOG:-}" ]; then trap 'cp /mnt/log "$OPERATIONS_LOG"' EXIT; fi
play
