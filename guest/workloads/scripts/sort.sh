n=0
while [ "$n" -lt "$1" ]; do
	n=$((n + 1))
	"$BB" seq 1 10000 | "$BB" sort -r | "$BB" sha256sum
done
