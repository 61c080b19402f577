# The helper's end: reads and writes the kernel's files as it is told on standard
# input. Any POSIX shell runs it. Arguments: a mark that begins every line of an
# answer and occurs nowhere else, a folder to mount in, this program where it is
# there, and where the machine's /run is.
#
# A request is a line "OPERATION PID N" and N lines:
#   read PID N      N patterns of paths
#   write PID 2     a path and a value
#   replace 0 N     a path and the lines of a file's new content; none removes it
#   lock 0 1        the path of a file that is locked until "unlock 0 0", or the end
# The answer to read has each file as "MARK file PATH", its content and
# "MARK end"; every answer ends with "MARK done CODE MESSAGE".
mark=$1 root=$2 program=$3 run=$4
umask 022
IFS=
nl='
'
mkdir -p "$root/proc" "$root/sys" "$root/net" &&
	mount -t proc -o nosuid,nodev,noexec proc "$root/proc" &&
	mount -t sysfs -o nosuid,nodev,noexec sysfs "$root/sys" || exit 1

# inside PID COMMAND...: in a namespace.
inside() {
	at=$1
	shift
	if [ "$at" = 0 ]; then "$@"; else nsenter -t "$at" -n "$@"; fi
}

# attach PID OPTIONS: the namespace's sysfs, where it is not the machine's.
attach() {
	[ "$1" = 0 ] || nsenter -t "$1" -n mount -t sysfs -o "nosuid,nodev,noexec,$2" sysfs "$root/net"
}

detach() { [ "$1" = 0 ] || umount "$root/net"; }

# safe FILE: nobody but this user can have written it, and it is no link.
safe() {
	[ -O "$1" ] && ls -ldn "$1" | { read -r line; case $line in l*|?????w*|????????w*) false ;; esac; }
}

# show PID PREFIX FOLDER PATTERN: the files that match in the folder that stands
# for the prefix.
show() {
	for file in $3${4#"$2"}; do
		[ -f "$file" ] && [ -r "$file" ] || continue
		[ "$2" != /run ] || safe "$file" || continue
		printf '%s file %s\n' "$mark" "$2${file#"$3"}"
		inside "$1" cat "$file" 2>/dev/null
		printf '\n%s end %s\n' "$mark" "$?"
	done
}

# features PID PATTERN: by this program, for no file has them.
features() {
	[ -n "$program" ] || return 0
	found=$(inside "$1" "$program" kernel-file "$2" 2>&1) || { said=$found; return 1; }
	printf '%s\n' "$found" | while read -r line; do
		[ -z "$line" ] || printf '%s file %s\n%s\n%s end 0\n' "$mark" "${line%% *}" "${line#* }" "$mark"
	done
}

look() { # PID PATTERN...
	pid=$1 net=$root/proc/$1/net sys=$root/net
	[ "$pid" != 0 ] || net=$root/proc/net sys=$root/sys
	[ -d "$net" ] || { said="No such process"; return 1; }
	shift
	said=$(attach "$pid" ro 2>&1) || return
	for pattern; do
		case $pattern in
		/proc/net/*) show 0 /proc/net "$net" "$pattern" ;;
		/proc/sys/net/*) show "$pid" /proc "$root/proc" "$pattern" ;;
		/proc/*) show 0 /proc "$root/proc" "$pattern" ;;
		/sys/*) show 0 /sys "$sys" "$pattern" ;;
		/etc/sysctl.d/*) show 0 /etc "$root/proc/1/root/etc" "$pattern" ;;
		/run/zeekdemo/*) ! safe "$run/zeekdemo" || show 0 /run "$run" "$pattern" ;;
		/ethtool/*) features "$pid" "$pattern" || { detach "$pid"; return 1; } ;;
		esac
	done
	detach "$pid"
}

# readonly_net: is the superblock behind the attached sysfs read-only?
readonly_net() {
	while read -r line; do
		case $line in *" $root/net "*" - sysfs sysfs ro"*) return 0 ;; esac
	done <"$root/proc/self/mountinfo"
	return 1
}

# put FILE VALUE: cat says what the kernel said, a shell's own printf does not.
put() { printf '%s' "$2" | cat >"$1"; }

# write_net PID FILE VALUE: makes the container's sysfs writable for this write.
# The machine's own (PID 0) is never remounted.
write_net() {
	sys=$root/net
	[ "$1" != 0 ] || sys=$root/sys
	attach "$1" rw || return
	[ -e "$sys$2" ] || { echo "No such file or directory" >&2; detach "$1"; return 1; }
	again=
	[ "$1" != 0 ] && readonly_net && again=ro && mount -o remount,rw "$sys"
	put "$sys$2" "$3"
	code=$?
	[ -z "$again" ] || mount -o remount,ro "$sys" || code=1
	detach "$1"
	return "$code"
}

change() { # PID PATH VALUE
	case $2 in
	/sys/*) write_net "$1" "${2#/sys}" "$3" ;;
	/proc/sys/*)
		[ -e "$root$2" ] || { echo "No such file or directory" >&2; return 1; }
		inside "$1" sh -c 'printf %s "$2" | cat >"$1"' sh "$root$2" "$3" ;;
	/ethtool/*) inside "$1" "$program" kernel-file "$2" "$3" ;;
	*) echo "No such file or directory" >&2; return 1 ;;
	esac
}

# ready FILE: the folder of a record is there, and nobody else has a hand in it.
ready() {
	mkdir -p "${1%/*}" || return
	safe "${1%/*}" && { [ ! -e "$1" ] && [ ! -h "$1" ] || safe "$1"; } || {
		echo "Permission denied: others than root may write into /run${1#"$run"}" >&2
		return 1
	}
}

# place PATH: which file that is here.
place() {
	case $1 in
	/run/*) file=$run${1#/run}; ready "$file" ;;
	*)
		file=$root/proc/1/root$1
		[ -d "$root/proc/1/root/etc" ] || { echo "Permission denied: the machine's files are not seen from a container here" >&2; return 1; }
		mkdir -p "${file%/*}" ;;
	esac
}

replace() { # PATH [LINE...]: durably
	place "$1" || return
	shift
	if [ "$#" = 0 ]; then rm -f "$file" && sync "${file%/*}"; return; fi
	# The mark makes the name random, and -C makes the file with O_EXCL: what
	# others have put there is neither opened nor followed. No file of a helper
	# that still writes is removed before it, for one at a time tunes a machine.
	rm -f "${file%/*}"/.zeekdemo-*.new
	new=${file%/*}/.zeekdemo-$mark.new
	(set -C && printf '%s\n' "$@" >"$new") && sync "$new" && mv -f "$new" "$file" && sync "${file%/*}"
}

# hold PATH: locks it for as long as this shell has it open. Where there is no
# flock, the engine's lock is what keeps two apart.
hold() {
	file=$run${1#/run}
	said=$(ready "$file" 2>&1) || return
	command -v flock >/dev/null || return 0
	command exec 9>>"$file" || { said="Permission denied"; return 1; }
	flock -n 9 || { exec 9>&-; said="another one has it"; return 1; }
}

while IFS=' ' read -r operation pid count; do
	set --
	while [ "$count" -gt 0 ] && read -r line; do
		set -- "$@" "$line"
		count=$((count - 1))
	done
	[ "$count" = 0 ] || break # the client is gone
	case $operation in
	read) said=; look "$pid" "$@" ;;
	write) said=$(change "$pid" "$@" 2>&1) ;;
	replace) said=$(replace "$@" 2>&1) ;;
	lock) said=; hold "$1" ;;
	unlock) said=; exec 9>&- ;;
	*) said="unknown operation"; false ;;
	esac </dev/null
	printf '%s done %s %s\n' "$mark" "$?" "${said##*"$nl"}"
done
