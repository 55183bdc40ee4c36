# Ends the server in $1 when the test process $3 has ended without doing so.
# $2 is "shared" (wait $4 seconds for other processes), "own", or "remove" (its
# directory too).
kind=$2 pid=$3 grace=$4

# runs: the number may belong to another program by now, or be a zombie's.
runs() {
	case $(tr '\0' ' ' <"/proc/$server/cmdline" || ps -ww -o args= -p "$server") in
	*" $dir/data "*) true ;;
	*) false ;;
	esac 2>/dev/null
}

read -r line # returns when the process has ended
dir=$(cd "$1" 2>/dev/null && pwd -P) || exit 0

if [ "$kind" = shared ]; then
	rm -f "$dir/users/$pid"
	sleep "$grace"
	for user in "$dir"/users/*; do
		[ -e "$user" ] || continue
		if kill -0 "${user##*/}" 2>/dev/null; then exit 0; fi
		rm -f "$user" # its own stopper was killed too
	done
fi

read -r server 2>/dev/null <"$dir/data/postmaster.pid" || server=
if [ -n "$server" ] && runs; then
	kill -INT "$server"
	while [ "$kind" = remove ] && runs; do sleep 1; done
fi
[ "$kind" != remove ] || rm -rf "$dir"
