# The end of a guest: its command between marker lines on ttyS1, a tar of /out on ttyS2. Read by init.sh, or by a unit of the system
# that came up.
# Held open to the end: a terminal that nobody has open may forget that it is raw.
exec 3<>/dev/ttyS1
stty raw -echo <&3
read -r up _ </proc/uptime
printf '\n@@vm release %s\n@@vm booted %s\n@@vm begin\n' "$(uname -r)" "$up" >&3
cd /tmp || exit 1
/bin/sh /etc/vm/command </dev/null >&3 2>&3 3>&-
status=$?
read -r down _ </proc/uptime
if [ -n "$(ls -A /out 2>/dev/null)" ]; then
	exec 4<>/dev/ttyS2
	stty raw -echo <&4
	tar -C /out -cf - . >&4
fi
printf '\n@@vm end %s %s\n' "$status" "$down" >&3
# A system that has an init of its own is not to be asked for leave.
poweroff -f -f
