//! Of disks, what they lie in, and what is written: the data plane.

/// Sorted by code.
pub(super) const CODES: &[(&str, &str)] = &[
    (
        "cache.abandoned",
        "A thread that read part of the source ended before it was done. Another error or a bug report precedes this one.",
    ),
    (
        "cache.folder",
        "--cache-dir names a folder in which what was fetched from other machines is kept. It must be possible to make and write it, and nobody else may be able to write the files in it, for what they say is believed.",
    ),
    (
        "convert.backing",
        "The image cannot name this backing file. A qcow2 image keeps the name in at most 1,023 bytes of UTF-8, relative to its own directory where the file lies in it or below.",
    ),
    (
        "convert.cluster",
        "The qcow2 cluster size must be a power of two from 4 KiB to 2 MiB, and large enough that the tables of a disk of this size stay within what QEMU reads. 64 KiB is good for disks up to some petabytes.",
    ),
    (
        "convert.compress",
        "--compress takes zlib or zstd, with a level behind a colon if need be. zlib, which every reader of qcow2 knows, has levels 1 to 9; zstd is faster on both sides, needs QEMU 5.1 or later, and has levels 1 to 19.",
    ),
    (
        "convert.destination",
        "`convert` needs a source and a destination: `hyper2kvm convert SRC DST`, or `SRC... DIR/`.",
    ),
    (
        "convert.empty",
        "The disk has no bytes, so there is nothing to convert. The export that made it probably failed.",
    ),
    ("convert.encode", "An encoder failed on its own input. That is a bug in hyper2kvm, please report it."),
    ("convert.format", "There is no such format to write. `hyper2kvm help convert` lists the formats that --to takes."),
    (
        "convert.names",
        "Two disks would be written to the same file. Convert them one by one, or into different directories.",
    ),
    (
        "convert.options",
        "These options do not go together, or not with this format: compression, cluster sizes, subclusters and backing files are qcow2's, and preallocation goes neither with compression nor with a backing file.",
    ),
    (
        "convert.refcount",
        "A cluster of the output would hold more compressed clusters than its refcount can count. That is a bug in hyper2kvm, please report it.",
    ),
    (
        "convert.size",
        "The disk cannot get the size that was asked for. It can grow to any number of whole sectors, up to 64 PiB; it is never cut, since what is at its end may be needed: shrink the file systems and partitions in the guest first, and copy what is left with other means.",
    ),
    (
        "convert.stream",
        "This format cannot be written where the output goes. A pipe only goes forward, so a format must need no way back and know its tables before its data; on a device, a format must know where it ends; what was sent to an object store stays as it is, but for its beginning. The message names those that can. What went into a pipe cannot be read back either, so it is not verified.",
    ),
    (
        "convert.thread",
        "A worker thread could not be started, or it stopped in an unexpected way. The latter is a bug in hyper2kvm, please report it.",
    ),
    (
        "disk.range",
        "A read or write went past the end of a disk. The image's own metadata points outside of the data it describes, or the file was cut short.",
    ),
    (
        "disk.read-only",
        "Something was to be written to a volume that can only be read: one with parity, a thin volume, the origin of snapshots, or one that its group says is read-only. The message says which.",
    ),
    ("disk.too-large", "A disk or file claims to be larger than the largest size that any format allows."),
    ("fault.injected", "A failure injected on purpose by a test layer. It never occurs in normal use."),
    (
        "feed.again",
        "Something tried to read a second time what comes forward only. That is a bug in hyper2kvm, please report it.",
    ),
    (
        "feed.choice",
        "A stream brings one disk in one state: neither --disk nor --snapshot can choose. Save it to a file first.",
    ),
    (
        "feed.format",
        "Only raw disks and stream-optimized VMDKs can be read from a pipe. Save it to a file, and name that as the source.",
    ),
    ("feed.length", "A raw disk that comes through a pipe does not say how long it is. Give its length with --size."),
    ("feed.long", "More came through a pipe than the disk should have. Give its length with --size."),
    (
        "feed.order",
        "What comes through a pipe must come in the order of the disk. Save it to a file, and name that as the source.",
    ),
    (
        "feed.parent",
        "The disk in the pipe needs a parent image. Save the chain to files, and name the last one as the source.",
    ),
    (
        "feed.short",
        "What came through a pipe ended before the length that was expected: what wrote it failed, or --size is wrong.",
    ),
    (
        "format.ambiguous",
        "The file has the marks of more than one format. A guest can write another format's header into its own disk so that a later reader opens files of the host; so no choice is made. Name the format that the file really has with --format.",
    ),
    ("format.name", "The format given with --format does not exist. `hyper2kvm info --help` lists the names."),
    (
        "format.snapshot",
        "A snapshot was asked for, and the format keeps none, or none of that name. `hyper2kvm info` lists those that there are.",
    ),
    (
        "format.unit",
        "A reader asked a layer to decode a unit that it does not have. This is a bug of this program; please report it.",
    ),
    (
        "format.unknown",
        "The file begins like no disk image that this program knows. It is never taken for a raw disk without a partition table; say --format raw if it is one.",
    ),
    (
        "format.unsupported",
        "The format is recognised and this version does not read it. qemu-img convert may turn it into one that is read.",
    ),
    (
        "http.busy",
        "The server could not answer: it is overloaded, limits how often it is asked, or is being restarted. It was asked several times, with pauses in between, or wants to be left alone for longer than makes sense to wait. Run the same command later; a conversion goes on where it stopped.",
    ),
    (
        "http.certificate",
        "A certificate or key that was given with --cacert, --client-cert or --client-key cannot be used. All are read in PEM, keys unencrypted.",
    ),
    (
        "http.connection",
        "No connection to the server, or it ended. The cause says why. It was tried several times; run the same command again when the network is better.",
    ),
    (
        "http.denied",
        "The server wants to know who asks, or does not give the file to whoever that is. Log in with --login and --password-file, --token-file, --cookie-file or --netrc-file. A signed address may have expired. Credentials go only to the server that the source names, not to where it redirects.",
    ),
    (
        "http.encoding",
        "The server, or a proxy before it, compresses the file on the way though it was asked not to, so that ranges of it mean nothing. Have it serve the file as it is.",
    ),
    (
        "http.login",
        "A name, password, token, cookie or file with credentials cannot be used: it cannot be read, is empty, or is no line of text. A password needs a name: --login, or https://NAME@HOST/.",
    ),
    ("http.missing", "The server has no file of this name, or does not want to tell of it."),
    (
        "http.no-ranges",
        "The server gives the file as a whole only. A disk is read here and there, which needs ranges; nginx, Apache, vSphere and object stores have them. `convert` reads raw disks and stream-optimized VMDKs from such a server in one pass; for everything else, download the file first.",
    ),
    (
        "http.plain",
        "Credentials were given for an http:// address of another machine. Everybody on the way could read them. Use https://.",
    ),
    (
        "http.range",
        "The server answers with another part of the file than it was asked for. It, or a proxy before it, is broken; nothing of such an answer is used.",
    ),
    (
        "http.redirect",
        "The server sends us to an address that it may not choose: one that is no web server, that is not encrypted while the source's is, or that belongs to this host or its own network. A server elsewhere must not make us read from there. If it is right, give that address as the source.",
    ),
    (
        "http.silent",
        "The server did not answer, or stopped in the middle of an answer, and was asked again several times. --net-timeout and --net-retries change how long and how often; run the same command again when the network is better.",
    ),
    ("http.status", "The server gave an answer that makes no sense for a file. The message has its number."),
    (
        "http.tls",
        "No encrypted connection to the server came about, or its certificate is not trusted: nobody vouches for it, or for another name or time. Trust its authority with --cacert, or exactly this certificate with --thumbprint. There is no way to trust everyone.",
    ),
    (
        "journal.arrays",
        "A list of a journal file of the guest is in more pieces than any that journald makes. The file is damaged; guest log SRC --check tells more.",
    ),
    (
        "journal.chain",
        "A hash table of a journal file of the guest has a longer chain than any that journald makes. The file is damaged; guest log SRC --check tells more.",
    ),
    (
        "journal.compressed",
        "A compressed field of the guest's journal cannot be decoded. It was damaged; the rest of the journal can be read.",
    ),
    (
        "journal.corrupt",
        "A journal file of the guest contradicts itself, as one that was being written when the guest stopped may do at its end. What can still be read is shown; guest log SRC --check checks all files.",
    ),
    (
        "journal.features",
        "A journal file of the guest was written by a newer systemd, in a way that this program does not know.",
    ),
    ("journal.field-size", "A field of the guest's journal is larger than what makes sense in a log. It is left out."),
    ("journal.fields", "An entry of the guest's journal has more fields than journald takes. The file is damaged."),
    (
        "journal.files",
        "The guest has more journal files than can be read together. Copy those that matter out with guest cp, and read them with journalctl --file.",
    ),
    (
        "journal.header",
        "A file in the guest's journal folder does not begin as journal files do, or is shorter than it says. It is left out.",
    ),
    (
        "journal.values",
        "A field of the guest's journal has more different values than can be listed. Ask for the entries instead, with -o json.",
    ),
    (
        "key.read",
        "A key of encrypted volumes cannot be read. --key takes SELECTOR:file:PATH, SELECTOR:fd:N or SELECTOR:prompt, which needs a terminal.",
    ),
    (
        "nbd.connection",
        "No connection to the NBD server, or it ended. The cause says why. It was tried several times; run the same command again when the server and the network are there.",
    ),
    (
        "nbd.error",
        "The NBD server could not carry out a request; its own words are in the message. Errors that may pass were met with further attempts. Its log says more.",
    ),
    (
        "nbd.missing",
        "The NBD server has no export of this name. The message has the names of those that it has, if it tells them. The name stands behind the host: nbd://HOST/NAME; without one, the default export is meant.",
    ),
    (
        "nbd.protocol",
        "The NBD server sent something that the protocol does not allow. Nothing of such an answer is used, and the server is not asked again.",
    ),
    (
        "nbd.refused",
        "The NBD server does not let us in: it wants TLS (nbds://), forbids it by a policy of its own, or is from before 2011. The message has its reason.",
    ),
    (
        "nbd.silent",
        "The NBD server did not answer in time, and was asked again several times. --net-timeout and --net-retries change how long and how often; run the same command again when the network is better.",
    ),
    (
        "nbd.tls",
        "No encrypted connection to the NBD server came about: it has none to offer, its certificate is not trusted, or it wants one of ours. Trust its authority with --cacert, or exactly this certificate with --thumbprint, or name a folder with tls-certificates= in the address; show a certificate with --client-cert. Keys that both sides know (PSK) are not supported.",
    ),
    (
        "nbd.unflushed",
        "The connection to the NBD server ended after writes that it had not yet been asked to make durable, and they are not read back (--verify off). The server may have lost them. Run the same command again.",
    ),
    ("nbd.unsupported", "The NBD server cannot do what is needed, such as taking writes. The message says what."),
    (
        "object.answer",
        "An object store answered with something that makes no sense for what it was asked. If it is not the cloud's own, see whether it knows all of the protocol.",
    ),
    (
        "object.archived",
        "The object is in a storage class that cannot be read at once (S3 Glacier, Azure's archive tier). Restore it in the store, which can take hours, and run the same command again.",
    ),
    (
        "object.clock",
        "Requests to an object store are signed with the time, and this machine's clock differs from the store's by too much. Set the clock.",
    ),
    (
        "object.credentials",
        "Credentials for an object store were found and cannot be used, or were named and not found. For s3:// these places count, the first one that has some: AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, the profile of AWS_PROFILE in ~/.aws/credentials and ~/.aws/config, its single sign-on, AWS_WEB_IDENTITY_TOKEN_FILE. For azblob://: --token-file with a SAS or bearer token, AZURE_STORAGE_CONNECTION_STRING, AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN, AZURE_CLIENT_SECRET or AZURE_FEDERATED_TOKEN_FILE. For gs://: --token-file, GOOGLE_APPLICATION_CREDENTIALS, what gcloud auth application-default login left. The role of the machine itself counts with --instance-credentials. Other programs (credential_process) are not run: `aws configure export-credentials --format env` gives what they say as variables. --anonymous looks nowhere.",
    ),
    (
        "object.denied",
        "An object store does not give the object to whoever asked: the credentials are wrong or no longer valid, may not read it, or there are none and the object is not public. The message has the store's own word for it. hyper2kvm help object.credentials says where credentials are looked for.",
    ),
    (
        "object.missing",
        "The store has no object of this name, no such bucket, or does not want to tell of it. Names are exact, with capital letters and without a slash at the beginning.",
    ),
    (
        "object.parts",
        "An object has at most 10,000 parts, some of which are in memory at once, so those of a very large disk do not fit into what --memory gives. The message says how much is needed.",
    ),
    (
        "object.region",
        "The bucket lies in another region than the one that was asked, or at another store. Set AWS_REGION to the one in the message, or give the store's address with --endpoint-url.",
    ),
    (
        "object.status",
        "An object store gave an answer that makes no sense for an object. The message has its number and word.",
    ),
    (
        "output.changed",
        "While the output was being written, something else removed or replaced its .partial file. Nothing was given the final name; run the command again.",
    ),
    (
        "output.closed",
        "The program that read the disk from standard output ended or closed it before all of it was written. Its own message says why; nothing is wrong with the source.",
    ),
    (
        "output.exists",
        "A file of the output's name exists, or the output is a device. A file is replaced only with --force, and only once the new one is complete and verified. A device is overwritten only with --force: what is on it is lost at once, and its beginning is written last, so that nothing is found on it until all of it is verified.",
    ),
    (
        "output.full",
        "The file system of the output has no room left. Nothing appears under the final name; free some space and run the same command again, which goes on where this one ended.",
    ),
    (
        "output.in-use",
        "The device is mounted, holds swap, is part of another device (LVM, RAID, encryption), or another program holds it. The kernel gives a device to one writer only. Nothing was written.",
    ),
    ("output.json", "A result could not be turned into JSON. This is a bug; please report it with the command."),
    (
        "output.locked",
        "Another process, which the message names when it can be known, holds the lock on this output's .partial or .journal file: it is being written right now.",
    ),
    ("output.name", "The output must be the name of a file, not a directory or a path that ends in .."),
    (
        "output.order",
        "A format wanted to change what had gone into a pipe already. That is a bug in hyper2kvm, please report it.",
    ),
    (
        "output.source",
        "The output is the device that the source is read from, or a partition of it, or the disk that it is a partition of. Writing would destroy what is being read.",
    ),
    (
        "output.space",
        "By the source's map the output could need more room than its file system has. Zeros among the data are not known before they are read, so it might have fitted; but a disk that fills up half-way helps nobody.",
    ),
    (
        "output.stale",
        "A file named like the output with .partial or .journal behind it is in the way: a link, another user's file, or no regular file. It was not made by an earlier run of this command, so it is not overwritten.",
    ),
    (
        "output.terminal",
        "Standard output is a terminal, which can do nothing with the bytes of a disk. Pipe them into a program, send them to a file with >, or name a file as the destination.",
    ),
    ("output.type", "What has the output's name is not a regular file. It is not replaced, not even with --force."),
    ("output.write", "The operating system refused a write to the output. The cause says why."),
    (
        "ova.descriptor",
        "The package does not hold exactly one .ovf descriptor of a reasonable size, so it is not clear which machine it describes.",
    ),
    (
        "ova.digest",
        "A file of the package is not the one that its manifest vouches for: it was damaged on the way, or changed. Get the package again. Nothing appears under the final name.",
    ),
    (
        "ova.manifest",
        "The package's manifest (.mf) is malformed, gives two digests for one file, or uses a digest function that is not handled.",
    ),
    (
        "ova.missing",
        "The descriptor or manifest lists a file that the package does not hold. Only the package's own files are used; nothing else is looked for.",
    ),
    (
        "overlay.backing",
        "An overlay that is kept names what lies below it, so that QEMU can open it too. That works for an image in a file of its own and for one in an OVA, in a format that QEMU knows, but not for compressed packages, OVF folders and internal snapshots. Unpack the source, or let the overlay end with the command: --writable.",
    ),
    (
        "overlay.broken",
        "Writing the overlay's tables failed earlier, so what the file holds is not known any more. Stop the command, make room if the disk was full, and start again: what was flushed before the failure is there.",
    ),
    (
        "overlay.count",
        "--overlay is given once for each disk, in the machine's order. Choose fewer disks with --disk, or name more files.",
    ),
    (
        "overlay.exists",
        "With --fix the overlay must be a new file: fixing the same guest twice is not what anyone wants. Leave --fix out to go on with the overlay, in which the fixes are.",
    ),
    (
        "overlay.frozen",
        "Something tried to change a disk whose fixes were already complete. This is a bug in hyper2kvm, please report it.",
    ),
    (
        "overlay.full",
        "The changes to the disk do not fit into the overlay's share of the memory budget. Give a larger --memory.",
    ),
    ("overlay.locked", "Another program, such as QEMU or another hyper2kvm, has the overlay open."),
    (
        "overlay.other",
        "The file that --overlay names exists and cannot be gone on with: it is no qcow2 image of the sort that this program makes, it belongs to another source, or it has internal snapshots. Name another file.",
    ),
    (
        "overlay.size",
        "A disk whose size is no multiple of 512 bytes, or more than a petabyte, cannot have an overlay in a qcow2 file.",
    ),
    ("overlay.spill", "The overlay lost its spill file. This is a bug in hyper2kvm, please report it."),
    (
        "ovf.chunk",
        "A file of an OVF package is split into chunks, and one of them is longer or shorter than the descriptor says, the last ones are missing, or there are far too many. A chunk is damaged, or belongs to another package.",
    ),
    (
        "ovf.descriptor",
        "The OVF descriptor contradicts itself: it refers to a disk or file that it does not describe, or is not one at all.",
    ),
    (
        "ovf.unsupported",
        "The OVF package is well formed and uses something that is not handled: several machines, compressed or split disk files, or disks based on others.",
    ),
    (
        "ovf.xml",
        "The OVF descriptor is not well-formed XML in UTF-8, has a document type declaration, which is never accepted, or is far larger than any real one.",
    ),
    (
        "packed.corrupt",
        "A compressed file does not decode, or its content is not what was compressed: a checksum differs, or its index is wrong. It was damaged; get it again.",
    ),
    ("packed.empty", "A compressed file holds nothing at all. What made it probably failed."),
    (
        "packed.limit",
        "A compressed file has more parts, a larger content, or needs more memory for decoding than any real one.",
    ),
    (
        "packed.nested",
        "Something compressed is inside of something compressed. Only one level is undone; decompress the outer one first.",
    ),
    (
        "packed.random",
        "The compressed file is one piece without places to begin at, and the image in it must be read here and there, which would decode it again and again. Decompress it first, or compress it in blocks: `xz -T0 --block-size=16MiB` or `pzstd`.",
    ),
    (
        "packed.truncated",
        "A compressed file ends before its content does. A download or copy was probably cut short; get the file again.",
    ),
    (
        "packed.unsupported",
        "A compressed file uses a part of its format that this version does not read, such as a dictionary that is not in the file.",
    ),
    (
        "qcow2.bitmap",
        "A persistent bitmap of the image cannot be used: its directory or table is damaged, or it was not saved when the image was last written. The disk itself can be read.",
    ),
    (
        "qcow2.check",
        "The image is too large to be checked within the memory budget, or its tables name each other so often that a check would not end. Give more with --memory.",
    ),
    (
        "qcow2.compression",
        "The image's clusters are compressed in a way that is not known here. Convert it with a newer qemu-img first.",
    ),
    (
        "qcow2.corrupt-bit",
        "The program that last wrote the image found it damaged and marked it. Repair a copy with qemu-img check -r all, look at what it says, and use the copy.",
    ),
    (
        "qcow2.data-file",
        "The image keeps its data in another file and does not say which, or that is not possible here. The report of the program that wrote the image may name the file.",
    ),
    ("qcow2.decode", "A compressed cluster does not decode to exactly one cluster. The image is damaged."),
    ("qcow2.encrypted", "The image is encrypted, which is not handled yet. Decrypt it with qemu-img first."),
    (
        "qcow2.entry",
        "An entry of the image's mapping tables contradicts the specification. The image is damaged; qemu-img check says more.",
    ),
    (
        "qcow2.features",
        "The image states that whoever reads it must know a feature that is not known here. Convert it with a newer qemu-img first.",
    ),
    (
        "qcow2.header",
        "The image's header contradicts the specification. The image is damaged, or it is not a qcow2 image.",
    ),
    ("qcow2.l1", "The image's first table is larger than any sensible image needs. qemu refuses it too."),
    (
        "qcow2.snapshots",
        "The image's list of internal snapshots is longer than any that QEMU makes. The current state can be read all the same.",
    ),
    (
        "qcow2.truncated",
        "The image names bytes past the end of its file: it was probably cut short by an unfinished download or copy. Get it again.",
    ),
    ("qcow2.version", "Only versions 2 and 3 of qcow2 are handled. Convert the image with qemu-img first."),
    (
        "reference.depth",
        "The chain of images is longer than any that is used in practice, or an image refers to itself.",
    ),
    (
        "reference.kernel",
        "This kernel (or a sandbox) does not offer openat2, by which references are kept inside their directory. Nothing else is safe enough, so the reference is not opened.",
    ),
    (
        "reference.missing",
        "The image names another file that belongs to it, which is not there. Copy all of the image's files into one directory, or say where the file is with --map-path OLD=NEW.",
    ),
    (
        "reference.refused",
        "The image names a file outside of its own directory. An image may come from anyone, so it opens nothing of this host by itself; allow the place with --allow-dir DIR or --map-path OLD=NEW if you trust it.",
    ),
    (
        "resume.changed",
        "A .partial and .journal that an unfinished run left are in the way, and cannot be gone on with: the source, the options or the program are not the same. Run the command as it was, or add --restart, which discards what was done.",
    ),
    (
        "resume.journal",
        "The journal of an unfinished run says that data lies where this program would not put it. Begin again with --restart.",
    ),
    (
        "source.address",
        "A source begins like the address of a file on another machine, and is none. It has the form https://HOST/PATH, http://HOST:PORT/PATH, s3://BUCKET/KEY, gs://BUCKET/OBJECT, azblob://ACCOUNT/CONTAINER/BLOB, ssh://USER@HOST/PATH, nbd://HOST/EXPORT or nbd+unix:///EXPORT?socket=PATH. The address of a store (--endpoint-url) has the form https://HOST[:PORT]. A file of this host whose name begins so is named as ./NAME.",
    ),
    (
        "source.changed",
        "The source was written to or replaced while it was read, so what was read may be old and new in parts. Convert a snapshot, or stop whoever writes to it.",
    ),
    ("source.disk", "The source has no such disk. Disks are counted from 1 or named; `hyper2kvm info` lists them."),
    ("source.empty", "The source has no bytes at all. A download or export probably failed; get the file again."),
    (
        "source.name",
        "The name of a source must be UTF-8, since `#N` and URIs are looked for in it. Give the file another name, or a link to it.",
    ),
    ("source.no-disk", "The source opens, and holds no disk at all: an OVA or OVF without one."),
    ("source.read", "The operating system could not read the source. The cause says why."),
    (
        "source.running",
        "VMware's lock lies beside the disk or the .vmx: the machine is running, is open in VMware, or died. A disk that is \
         written while it is read comes out torn. Shut the machine down, or convert a clone. --allow-running reads it all the same.",
    ),
    (
        "source.runtime",
        "What reads remote sources could not be set up on this host: the system gave no threads, or TLS could not start.",
    ),
    (
        "source.scheme",
        "Sources of this kind are not read. Those of http://, https://, s3://, gs://, azblob://, ssh:// (or sftp://) and nbd:// are, beside files and block devices of this host.",
    ),
    (
        "source.secret",
        "A password stands in the address of a source. The command line can be seen by others on this host. Leave it out, and give it with --password-file, --password-fd, --netrc-file or in HYPER2KVM_PASSWORD.",
    ),
    (
        "source.sector-size",
        "The block device has a logical sector size that no guest disk has. Copy it to a file first.",
    ),
    (
        "source.short",
        "The source file became shorter while it was read. What is missing is never taken as zeros; get the file again.",
    ),
    (
        "source.stdin",
        "Standard input comes forward only, so it can be converted and nothing else. Save it to a file first.",
    ),
    ("source.terminal", "A disk is not read from a terminal. Pipe it in, or name a file."),
    ("source.type", "The source is a directory, fifo, socket or character device. Name the image file itself."),
    (
        "ssh.algorithm",
        "The SSH server knows none of the ciphers, key exchanges or kinds of keys that are used here, which leave out what is known to be weak. The message has what it offers. The system's ssh may know more: --ssh-program ssh.",
    ),
    (
        "ssh.config",
        "A file with the configuration of OpenSSH or with known hosts cannot be used: it cannot be read, has a line that is none, or says something that is not done here and would change whom we trust or how we get there. --ssh-config names another file (/dev/null is none); --ssh-program ssh leaves all of it to the system's ssh.",
    ),
    (
        "ssh.connection",
        "The connection to an SSH server did not come about or broke, and further tries did not help. The cause says how. Run the same command again when the network is better; a conversion goes on where it stopped.",
    ),
    (
        "ssh.denied",
        "The user who is logged in on the SSH server may not read the file. Name another one: ssh://USER@HOST/PATH, or --login.",
    ),
    ("ssh.failed", "The SSH server says that it cannot read the file. The message has its words."),
    (
        "ssh.host-key",
        "Nothing is known of the key that an SSH server shows, so nobody can tell whether it is the right server. Compare the digest of the message with that of the server (ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub there), and add the line of the message to ~/.ssh/known_hosts, or give the digest with --ssh-host-key. There is no way to trust everyone.",
    ),
    (
        "ssh.host-key-changed",
        "An SSH server shows another key than the one that is known of it, or one that was revoked: somebody may be in between, or the server was installed anew. Ask who runs it before the old key is taken out (ssh-keygen -R HOST).",
    ),
    (
        "ssh.key",
        "A private key for SSH cannot be used: the file cannot be read, is none, or was encrypted with another passphrase. --passphrase-file and HYPER2KVM_PASSPHRASE give that.",
    ),
    (
        "ssh.kind",
        "What the address names on the SSH server is no regular file: a directory, or a block device, which has no length in SFTP.",
    ),
    (
        "ssh.login",
        "The SSH server does not let us in: it knows none of the keys that were shown, or not the password. The message has what it takes. Name the user in the address, a key with --ssh-identity, or a password with --password-file.",
    ),
    (
        "ssh.missing",
        "The SSH server has no file of this name. Paths begin at the server's root; /~/ leads to the user's home directory.",
    ),
    (
        "ssh.program",
        "The program that was to make the connection to the SSH server could not be started. --ssh-program names it.",
    ),
    (
        "ssh.protocol",
        "The server does not keep to the protocol of files (SFTP, version 3). Start-up files of the user's shell that print something are the usual cause, else the server is broken.",
    ),
    (
        "ssh.sftp",
        "The SSH server lets us in and gives no files. SFTP has to be switched on there: Subsystem sftp internal-sftp in its sshd_config.",
    ),
    ("ssh.silent", "An SSH server said nothing for --net-timeout seconds, and further tries did not help."),
    (
        "tar.duplicate",
        "The archive holds two members of one name. Readers disagree on which one counts, so neither is taken.",
    ),
    (
        "tar.header",
        "The file is not a tar archive, or is one that different readers would read differently. Such archives are refused, since they can show one content to a checker and another to us.",
    ),
    ("tar.limit", "The archive has far more members, or longer names, than any real package."),
    (
        "tar.no-image",
        "A tar archive holds no file that is recognised as a disk image. A raw disk without a partition table is recognised only when --format raw says so.",
    ),
    (
        "tar.truncated",
        "The archive ends before its members do. A download or copy probably failed; get the file again.",
    ),
    (
        "tar.unsupported",
        "The archive has sparse or multi-volume members, or members of an unknown type. Pack the files again with a plain tar.",
    ),
    ("vdi.header", "The header of a VDI is damaged, or gives sizes and places that are impossible."),
    (
        "vdi.parent",
        "A differencing VDI needs the disk that it was made for, and what was found is another one or was changed since. VDI keeps no file name of the parent: give it with --map-path '{UUID}.vdi=PATH', with the UUID that `hyper2kvm info` of the parent shows.",
    ),
    ("vdi.truncated", "A block or the map of a VDI lies past the end of the file. It was probably cut short."),
    (
        "vdi.version",
        "A VDI is of a version that this program does not know. Version 1.1 is what VirtualBox has written since 2007.",
    ),
    (
        "verify.mismatch",
        "The output was read back and does not hold what was read from the source. It was not given its name. Bad memory or a bad disk is the usual cause.",
    ),
    (
        "vhd.block",
        "An entry of a VHD's block allocation table points into the headers, or two blocks share bytes. The image is damaged; `hyper2kvm check` lists everything that is wrong with it.",
    ),
    (
        "vhd.footer",
        "The footer of a VHD, its last 512 bytes, is missing or damaged, and there is no sound copy of it at the front. The file was probably cut short.",
    ),
    ("vhd.header", "The dynamic disk header of a VHD is damaged, or gives sizes and places that are impossible."),
    (
        "vhd.parent",
        "A differencing VHD needs the disk that it was made for, and what was found is another one, or the VHD does not name any. Point at the right file with --map-path OLD=NEW.",
    ),
    ("vhd.truncated", "A block or table of a VHD lies past the end of the file. It was probably cut short."),
    (
        "vhdx.bat",
        "The block allocation table of a VHDX is too small, or an entry of it is impossible: a state that does not exist, or a block inside the headers. `hyper2kvm check` lists everything that is wrong.",
    ),
    ("vhdx.feature", "A VHDX says that whoever reads it must understand something that this program does not know."),
    (
        "vhdx.header",
        "The headers of a VHDX, of which it keeps two copies, are damaged or contradict each other. The file was probably cut short or overwritten.",
    ),
    (
        "vhdx.log",
        "The log of a VHDX was not emptied, and it cannot be replayed: its entries are damaged, or the file is shorter than they say. Copy the image again after its machine was shut down.",
    ),
    ("vhdx.metadata", "The metadata of a VHDX is damaged, or gives sizes that are impossible."),
    (
        "vhdx.parent",
        "A differencing VHDX needs the disk that it was made for, and what was found is another one or was changed since. Point at the right file with --map-path OLD=NEW.",
    ),
    (
        "vhdx.region",
        "The region tables of a VHDX, of which it keeps two copies, are damaged or point outside of the file.",
    ),
    ("vhdx.truncated", "A block or table of a VHDX lies past the end of the file. It was probably cut short."),
    ("vhdx.version", "A VHDX is of a version that this program does not know."),
    (
        "vmdk.descriptor",
        "The VMDK's text descriptor is not one, contradicts itself, or has a line that is not understood. Nothing is skipped, since a skipped extent would move all that follow it.",
    ),
    (
        "vmdk.device",
        "The VMDK is a raw device mapping: its bytes are on a device or LUN, not in a file. Read that device as a raw source, or clone the disk into a file first, with vmkfstools -i.",
    ),
    (
        "vmdk.directory",
        "The VMDK's grain directory or a grain table lies outside of the file, or is too large. The file is damaged or incomplete.",
    ),
    (
        "vmdk.extent",
        "An extent line of the VMDK's descriptor is impossible or of a kind that is not handled, or the extent's file is shorter than the line says.",
    ),
    (
        "vmdk.footer",
        "A stream-optimized VMDK tells in its footer, at the end of the file, where its grains are. It is missing or contradicts the header: the file is incomplete or was tampered with.",
    ),
    (
        "vmdk.grain",
        "A grain of the VMDK lies outside of the file, belongs to another place, or does not decompress. The file is damaged or incomplete.",
    ),
    ("vmdk.header", "A field of the VMDK's header has an impossible value. The file is damaged."),
    (
        "vmdk.journal",
        "A seSparse snapshot has a journal that was not replayed: its machine was not shut down properly, and the tables lack what it wrote last. Start and stop the machine, or let vmkfstools check the disk.",
    ),
    ("vmdk.marker", "A marker in a stream-optimized VMDK is impossible. The file is damaged: get it again."),
    (
        "vmdk.parent",
        "A VMDK snapshot or linked clone needs the parent that it was made for, and what was found has another content id, or the snapshot does not name one. Point at the right file with --map-path OLD=NEW.",
    ),
    (
        "vmdk.stream",
        "A stream-optimized VMDK ended before its end. What wrote it failed, or was stopped: get it again.",
    ),
    ("vmdk.version", "The VMDK has a version, compression or layout that this version does not read."),
    (
        "vmx.device",
        "A machine's disk is a device of its VMware host, passed through to it, so its content is in no file beside the configuration.",
    ),
    (
        "vmx.encrypted",
        "The machine's configuration is encrypted, so its disks are too. Remove the encryption in VMware, or export the machine as OVF.",
    ),
    (
        "vmx.syntax",
        "A machine's configuration has a line that is not KEY = \"VALUE\", or gives a key two different values. VMware refuses such a file too.",
    ),
];
