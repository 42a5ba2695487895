# Shell arithmetic, tests and assignments; no process is started.
n=0
while [ "$n" -lt "$1" ]; do
	n=$((n + 1)) i=0 s=0
	while [ "$i" -lt 2000 ]; do
		s=$(((s * 31 + i) % 65521))
		i=$((i + 1))
	done
	echo "$s"
done
