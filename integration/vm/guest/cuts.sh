# cuts.sh: commits without end; the power is cut while it does. At the next start, everything that was
# acknowledged before must be there: state=N the last commit, gone=N the last removal,
# head=N the last kept run.
mount -t "$fs" /dev/vda /mnt || give_up "mount of the disk"
[ -d /mnt/store ] || { mkdir -m 0700 /mnt/store.new && chown single /mnt/store.new && mv /mnt/store.new /mnt/store; } ||
    give_up "folder of the store"
export state gone head cut
su single -c ". /jobs/cuts-user.sh" || give_up "job"
away /mnt
