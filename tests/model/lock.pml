/* The commit lock: who is inside, whatever is unlinked, killed or forked meanwhile.

   1. A terminal opens the lock file, takes the kernel's lock on it, looks whether it is still the
      one at its path, works, and unlocks; twice. Between two rounds the file stays open.
   2. A lock belongs to an open file description (`flock`), which a forked child shares. It is free
      when somebody unlocks it or when the last one who has the description closes it.
   3. Somebody unlinks the lock file while nobody holds it. A file with no name and no descriptor
      is gone, and its number goes to the next file at once.
   4. Any terminal may be killed before any step; it starts again.
   5. Nobody is ever inside together with somebody else, and nobody waits for ever.

   Right:    nothing defined; also LONG_CHILD
   Wrong:    NO_RECHECK, with and without UNLINK_ON_RELEASE, UNLINK_AFTER_RELEASE,
             LOCK_THE_DATA_FILE, CHILD_UNLOCKS, CLOSE_ONLY with LONG_CHILD, RECORD_LOCKS, EXISTENCE,
             BREAK_STALE */

#ifndef TERMINALS
#define TERMINALS 3
#endif
#define ROUNDS 2
#define FILES 5                 /* lock files that are there at the same time, open or named */
#define DESCRIPTIONS (TERMINALS + 1)

#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef SABOTAGES
#define SABOTAGES 1
#endif

byte path;                      /* the file that the lock's path names; 0: none */
byte opens[FILES + 1];          /* how many descriptions there are of each file */
byte holder[FILES + 1];         /* the description that has the lock; 0: none */
byte file[DESCRIPTIONS + 1];    /* what each description is of */
byte sharing[DESCRIPTIONS + 1]; /* how many processes have it */
byte parents;                   /* the description that terminal 1 has */
byte crashes = CRASHES, sabotages = SABOTAGES;
byte inside, finished, next;

#define MAY_DIE if :: true :: crashes > 0 -> crashes--; goto died fi

/* Makes a file at the path, with the lowest number that no file has. */
inline make_file() {
    next = 1;
    do
    :: next == path || opens[next] -> next++
    :: else -> break
    od;
    assert(next <= FILES);
    path = next; holder[path] = 0; next = 0
}

/* os.open */
inline open_file() {
    fd = 1;
    do
    :: sharing[fd] -> fd++
    :: else -> break
    od;
    assert(fd <= DESCRIPTIONS);
    file[fd] = path; sharing[fd] = 1; opens[path]++;
    if :: me == 1 -> parents = fd :: else fi
}

/* os.close, by one of those who have the description. */
inline close_file(fd) {
    sharing[fd]--;
    if
    :: sharing[fd] == 0 ->
        opens[file[fd]]--;
        if :: holder[file[fd]] == fd -> holder[file[fd]] = 0 :: else fi;
        file[fd] = 0
    :: else
    fi
}

inline close_mine() {
    close_file(fd); fd = 0;
    if :: me == 1 -> parents = 0 :: else fi
}

inline let_go() {
    if :: holder[file[fd]] == fd -> holder[file[fd]] = 0 :: else fi
}

proctype Terminal(byte me) {
    byte fd, rounds;
    bool within;
again:
    do
    :: rounds == ROUNDS -> break
    :: else ->
#if defined(EXISTENCE)
        /* The file itself is the lock: made with O_EXCL, unlinked when done. */
        atomic { path == 0 -> MAY_DIE; make_file(); open_file() }
#elif defined(BREAK_STALE)
        /* The same, and who finds that its maker is dead unlinks it. */
        do
        :: atomic { path == 0 -> MAY_DIE; make_file(); open_file(); break }
        :: atomic { path != 0 && opens[path] == 0 -> MAY_DIE };     /* no such process */
           atomic { MAY_DIE; path = 0 }
        od;
#else
reopen:
        atomic {                /* KernelLock.open, unless it is open still */
            MAY_DIE;
            if
            :: fd == 0 && path == 0 -> make_file(); open_file()
            :: fd == 0 && path != 0 -> open_file()
            :: else
            fi
        }
        atomic {                /* _platform.try_lock, _platform.lock */
            MAY_DIE;
            holder[file[fd]] == 0 -> holder[file[fd]] = fd
        }
#if !defined(NO_RECHECK) && !defined(LOCK_THE_DATA_FILE)
        atomic {                /* KernelLock.is_current; _reopen if it isn't */
            MAY_DIE;
            if
            :: path == file[fd]
            :: else -> let_go(); close_mine(); goto reopen
            fi
        }
#endif
#endif
        atomic {                /* Store.commit … */
            MAY_DIE; inside++; within = true;
            assert(inside == 1)
        }
#ifdef LOCK_THE_DATA_FILE
        atomic { MAY_DIE; make_file() }     /* … which replaces the data file */
#endif
        atomic { MAY_DIE; inside--; within = false }
        atomic {                /* KernelLock.release */
            MAY_DIE;
#if defined(EXISTENCE) || defined(BREAK_STALE)
            path = 0; close_mine()
#elif defined(CLOSE_ONLY)
            close_mine()
#else
#ifdef UNLINK_ON_RELEASE
            path = 0;
#endif
            let_go()
#endif
        }
#ifdef UNLINK_AFTER_RELEASE
        atomic { MAY_DIE; path = 0 }
#endif
        rounds++
    od;
    atomic {                    /* KernelLock.close */
        if :: fd -> close_mine() :: else fi;
        finished++; goto end
    }
died:
    atomic {                    /* the kernel closes everything */
        inside = inside - within; within = false;
        if :: fd -> close_mine() :: else fi;
        goto again
    }
end:
    skip
}

/* A child that terminal 1 forks at any moment. */
proctype Child() {
    byte fd;
    atomic {
        parents != 0 || finished == TERMINALS ->
        if :: parents == 0 -> goto end :: else fi;
        fd = parents; sharing[fd]++
    }
#ifdef CHILD_UNLOCKS
    atomic { let_go() }
#endif
#ifdef LONG_CHILD
    finished == TERMINALS;      /* a library's child, that never comes to our hook */
#endif
    atomic { close_file(fd); fd = 0 }   /* KernelLock.after_fork_in_child */
end:
    skip
}

/* Anybody who removes a file that looks like litter, while nobody holds it. */
proctype Saboteur() {
    do
    :: atomic { sabotages > 0 && path != 0 && holder[path] == 0 -> path = 0; sabotages-- }
    :: finished == TERMINALS || sabotages == 0 -> break
    od
}

#ifdef RECORD_LOCKS
/* A thread of terminal 1's process that reads the lock file: holder(), peeking().
   With POSIX record locks, closing any descriptor of the file lets go of the process's lock. */
proctype Peeker() {
    byte fd;
    atomic { path != 0 -> fd = path; opens[fd]++ }
    atomic { opens[fd]--; if :: holder[fd] == 1 -> holder[fd] = 0 :: else fi }
}
#endif

init {
    byte number;
    atomic {
        for (number : 1 .. TERMINALS) { run Terminal(number) }
        run Child();
        run Saboteur();
#ifdef RECORD_LOCKS
        run Peeker()
#endif
    }
}

/* Every wait ends. */
ltl ends { <> (finished == TERMINALS) }
