n=0
while [ "$n" -lt "$1" ]; do
	n=$((n + 1)) i=0
	while [ "$i" -lt 20 ] && "$BB" true; do
		i=$((i + 1))
	done
	echo "$i"
done
