#!/bin/bash
# Installs the package in a Debian that has just come up, uses it as its users do, and purges it. One line for each thing that is
# tried; the last line counts them.
set -u
deb=$(echo /etc/vm/*.deb)
unit=tcpwatch-agent
passed=0
failed=0
export TERM=dumb LC_ALL=C.UTF-8 PAGER=cat SYSTEMD_PAGER=cat

# try NAME COMMAND...: whether the command succeeds; if not, the last of what it said.
try() {
	local name=$1 said
	shift
	if said=$("$@" 2>&1); then
		echo "ok   $name -"
		passed=$((passed + 1))
	else
		echo "FAIL $name -: $(echo "$said" | tail -n 5 | tr '\n' ';' | cut -c1-600)"
		failed=$((failed + 1))
	fi
}

# until_true SECONDS COMMAND...: until the command succeeds, with what it said last.
until_true() {
	local end=$((SECONDS + $1)) said
	shift
	until said=$("$@" 2>&1); do
		if ((SECONDS >= end)); then
			echo "$said"
			return 1
		fi
		sleep 0.5
	done
}

# Everything on the disk, without what dpkg, man and the journal keep for themselves.
listing() {
	find / -xdev \( -path /var/log -o -path /var/lib/dpkg -o -path /var/cache/man -o -path /etc/vm \) -prune -o -printf '%y %p %l\n' |
		sort
}

programs() {
	bpftool prog list | grep -c -E '^[0-9]+: (tracing|kprobe|raw_tracepoint|tracepoint|perf_event|lsm|syscall) '
}

get() {
	exec 5<>/dev/tcp/127.0.0.1/9853 || return 1
	printf 'GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n' >&5
	cat <&5
	exec 5>&-
}

# figure PATTERN: a line of /metrics that matches, with a value that is not 0.
figure() {
	get >/tmp/metrics || { echo "nobody answers on 127.0.0.1:9853"; return 1; }
	grep -E "$1" /tmp/metrics | grep -v ' 0$' || { echo "no figure like $1"; grep "^tcpwatch_resets_total" /tmp/metrics | head -n 3; return 1; }
}

property() {
	systemctl show --property "$1" --value $unit
}

is() {
	local value
	value=$(property "$1")
	[ "$value" = "$2" ] && return
	systemctl status --no-pager --lines 4 $unit
	echo "$1 is $value, not $2"
	return 1
}

# Closes a connection with the greeting unread, which makes the kernel send a reset.
provoke() {
	/tmp/provoker -c 'exec 3<>/dev/tcp/127.0.0.1/7777; sleep 0.5; exec 3>&-'
}

exposure() {
	systemd-analyze security --no-pager --threshold=20 $unit
}

security_line() {
	systemd-analyze security --no-pager $unit | grep -F 'Overall exposure'
}

# refused: the hooks that root gets and the agent asked for, but has not.
refused() {
	[ -s /tmp/doctor.json ] || tcpwatch doctor --json >/tmp/doctor.json
	grep -o '"name":"[^"]*","attached":"[^"]*"' /tmp/doctor.json | cut -d'"' -f4 | sort >/tmp/root
	[ "$(wc -l </tmp/root)" -ge 20 ] || echo "doctor names few hooks: $(head -c 300 /tmp/doctor.json)"
	get | grep '^tcpwatch_hook_attached{' >/tmp/hooks
	[ "$(grep -c ' 1$' /tmp/hooks)" -ge 20 ] || echo "the agent has few hooks: $(grep ' 1$' /tmp/hooks)"
	sed -n 's/.*hook="\([^"]*\)".* 0$/\1/p' /tmp/hooks | sort | comm -12 /tmp/root -
}

# Functions of modules take CAP_SYS_ADMIN, which the unit has not.
hooks() {
	refused | grep -v -E '^nf_send_reset6?$' && return 1
	return 0
}

# With what docs/agent.md grants for containers it has all hooks, and looks into their namespaces.
containers() {
	refused | grep . && return 1
	until_true 30 figure "^tcpwatch_listen_queue_limit\{.*listener=\"0.0.0.0:7778\""
}

journal() {
	journalctl --quiet --no-pager --output json TCPWATCH_COMM=provoker TCPWATCH_CAUSE=close-with-unread-data | grep .
}

reload() {
	local pid
	pid=$(property MainPID)
	echo 'journal = true' >>/etc/tcpwatch/agent.toml
	systemctl reload $unit || return 1
	until_true 30 figure '^tcpwatch_config_reloads_total\{outcome="success"\}' || return 1
	# It is `reloading` until the hooks are attached again.
	is MainPID "$pid" && until_true 30 is ActiveState active
}

# The watchdog of the unit, but sooner; and the drop-ins of docs/agent.md.
watchdog() {
	printf 'listen = "0.0.0.0:9853"\n[otlp]\nendpoint = "http://10.9.0.1:4318"\n' >>/etc/tcpwatch/agent.toml
	mkdir -p /run/systemd/system/$unit.service.d
	printf '[Service]\nWatchdogSec=6\nIPAddressAllow=10.9.0.1\n' >/run/systemd/system/$unit.service.d/test.conf
	cat >/run/systemd/system/$unit.service.d/containers.conf <<-END
		[Service]
		CapabilityBoundingSet=CAP_SYS_ADMIN
		AmbientCapabilities=CAP_SYS_ADMIN
		RestrictNamespaces=
		RestrictNamespaces=net
		SystemCallFilter=setns
	END
	systemctl daemon-reload && systemctl restart $unit || return 1
	sleep 13
	is WatchdogUSec 6s && is ActiveState active && is NRestarts 0 && is Result success
}

# Who is let in and out: the address of the drop-in, and no other.
addresses() {
	timeout 10 bash -c 'exec 3<>/dev/tcp/10.9.0.1/9853' || { echo "the allowed address is not let in"; return 1; }
	! timeout 3 bash -c 'exec 3<>/dev/tcp/10.9.0.2/9853' || { echo "any address is let in"; return 1; }
	# And out: a collector there is sent figures.
	until_true 20 grep 'POST /v1/metrics' /tmp/collected
}

ring() {
	ls /var/lib/tcpwatch/tcpwatch-*.pcapng && tcpwatch diagnose -r /var/lib/tcpwatch | grep -F provoker
}

words() {
	local page
	for page in tcpwatch tcpwatch-agent; do
		man -w 8 $page | grep -F /usr/share/man/man8/ && man 8 $page | grep -q 'EXIT STATUS' || return 1
	done
	bash -c '. /usr/share/bash-completion/completions/tcpwatch && complete -p tcpwatch' || return 1
	test -s /usr/share/zsh/vendor-completions/_tcpwatch && test -s /usr/share/fish/vendor_completions.d/tcpwatch.fish
}

# The same version once more: what was changed in /etc stays, the agent is a new process.
again() {
	local pid
	pid=$(property MainPID)
	dpkg -i "$deb" </dev/null || return 1
	grep -q '^journal = true' /etc/tcpwatch/agent.toml || { echo "the configuration was overwritten"; return 1; }
	is ActiveState active && [ "$(property MainPID)" != "$pid" ]
}

removed() {
	dpkg -r tcpwatch || return 1
	[ -e /etc/tcpwatch/agent.toml ] || { echo "the configuration went with the package"; return 1; }
	! [ -e /usr/bin/tcpwatch ] && ! systemctl is-active --quiet $unit
}

nothing_left() {
	local left
	listing >/tmp/after
	diff /tmp/before /tmp/after || return 1
	if systemctl list-units --all --plain --no-legend | grep tcpwatch || systemctl list-unit-files | grep tcpwatch; then
		echo "a unit is left"
		return 1
	fi
	if getent passwd $unit || getent passwd tcpwatch; then
		echo "a user is left"
		return 1
	fi
	left=$(programs)
	[ "$left" = "$programs_before" ] || { echo "$left BPF programs, $programs_before before"; bpftool prog list; return 1; }
}

cp /bin/bash /tmp/provoker
systemd-socket-activate --listen 127.0.0.1:7777 --inetd --accept /bin/echo hello >/dev/null 2>&1 &
listener=$!
ip address add 10.9.0.1/32 dev lo
ip address add 10.9.0.2/32 dev lo
systemd-socket-activate --listen 10.9.0.1:4318 --inetd --accept /bin/sh -c 'head -n 1 >>/tmp/collected' >/dev/null 2>&1 &
collector=$!
ip netns add box
ip netns exec box systemd-socket-activate --listen 0.0.0.0:7778 --inetd --accept /bin/echo hello >/dev/null 2>&1 &
boxed=$!
until_true 20 bash -c 'ss -Hltn sport = :7777 | grep -q .' || echo "FAIL listener -: it does not listen"
# The first look at units makes caches.
systemctl list-unit-files >/dev/null
listing >/tmp/before
programs_before=$(programs)

try package-install dpkg -i "$deb"
try package-active is ActiveState active
try package-enabled systemctl is-enabled $unit
try package-exposure exposure
security_line
try package-hooks hooks
try package-programs test "$(programs)" -gt "$programs_before"
provoke
# The site is the name of a kernel function, so the agent can read those.
try package-figures until_true 20 figure '^tcpwatch_resets_total\{.*direction="sent".*cause="close-with-unread-data",site="__tcp_close",process="provoker"'
# A socket older than the agent, of another user: who has it is found in /proc.
try package-older-owner until_true 30 figure '^tcpwatch_listen_queue_limit\{.*listener="127.0.0.1:7777".*process="systemd-socket-'
try package-reload reload
provoke
try package-journal until_true 20 journal
try package-ring until_true 20 ring
try package-words words
try package-watchdog watchdog
try package-addresses addresses
try package-containers containers
try package-again again
try package-no-complaint bash -c '! journalctl --quiet --no-pager --unit tcpwatch-agent --priority warning --grep "watchdog|denied|failed"'
try package-remove removed
try package-purge dpkg -P tcpwatch
rm -r /run/systemd/system/$unit.service.d
systemctl daemon-reload
kill $listener $collector $boxed
ip netns delete box
try package-nothing-left until_true 15 nothing_left
echo "$passed passed, $failed failed"
