/* What commit.pml and replace.pml share: files, header, and a terminal, as the code has them.

   1. A file is a row of *units*. A record is two: its head, and its tail, which ends the line. So a
      write that is cut off leaves whole records, and perhaps half a one. Unit 2r is the head of
      record r, 2r + 1 its tail; 1 is a newline by itself.
   2. A write adds its units one after the other. The system lets no other writer in between, but a
      reader sees what is there so far, and a kill may come after any of them.
   3. The header is written in one step: it lies within a page, and a reader that sees it half
      written sees a wrong checksum and looks again.
   4. A file with no name and no descriptor is gone, and its number goes to the next one at once.
   5. What a terminal remembers is the fold of the records it has read: their numbers, as digits.
   6. A step is one system call, and named after the function that makes it. A terminal may be
      killed before any step; the kernel then frees its lock and closes its files, and it starts
      anew with its next operation.
   7. A session object opens its files for each operation here, as on Windows. */

#ifndef LOCKS
#define LOCKS 1                 /* lock files that ever are at the path */
#endif
#ifndef FILES
#define FILES 4                 /* data files that are there at the same time */
#endif
#ifndef ROTATIONS
#define ROTATIONS 3
#endif
#ifndef CRASHES
#define CRASHES 1
#endif
#ifndef FAILS
#define FAILS 0                 /* writes that a full disk cuts short */
#endif
#ifndef SABOTAGES
#define SABOTAGES 0
#endif
#ifndef FOREIGN
#define FOREIGN 0               /* the record that a program without our lock appends */
#endif

#define DAMAGED 7               /* in a fold: a line that is no record */
#define NEWLINE(u) ((u) % 2)

typedef File {
    byte size;
    byte unit[UNITS];
    byte names;                 /* st_nlink */
    byte opens;                 /* descriptors */
    byte writer;                /* who is in the middle of a write to it; FOREIGNER: another one */
    bool whole                  /* what was to be in it when it was made is in it */
};

#define NOTHING 0               /* intents */
#define APPENDING 1
#define REPLACING 2

typedef Header {
    bool valid;
    byte generation, identity, committed, kept, mark;
    byte intent, start, records, other, other_kept;
    byte serial
};

File file[FILES + 1];
byte live;                      /* the file that the session's name leads to */
byte rotated[ROTATIONS + 1];    /* those that the rotation names lead to */
byte temporary[TERMINALS + 2];  /* and the temporary name of each terminal */
Header header[LOCKS + 1];       /* of each lock file */
byte holder[LOCKS + 1];
byte lock_path, lock_files;
byte crashes = CRASHES, fails = FAILS, sabotages = SABOTAGES;

/* What happened, for the assertions. */
byte finished, inside, clock;
bool acknowledged[OPERATIONS + 1], refused[OPERATIONS + 1], foreign_wrote;
bool thrown_away[8];            /* records in rotated files that a user removed */

hidden byte i, j, stop, at, matched, best, best_at, best_stop, ends, number, k;
hidden int digits, other_digits;

#define MAY_DIE if :: true :: crashes > 0 -> crashes--; goto died fi

inline copy_header(to, from) {
    d_step {
        to.valid = from.valid; to.generation = from.generation; to.identity = from.identity;
        to.committed = from.committed; to.kept = from.kept; to.mark = from.mark;
        to.intent = from.intent; to.start = from.start; to.records = from.records;
        to.other = from.other; to.other_kept = from.other_kept; to.serial = from.serial
    }
}

#define SAME(a, b) (a.valid == b.valid && a.generation == b.generation && \
    a.identity == b.identity && a.committed == b.committed && a.intent == b.intent && \
    a.start == b.start && a.records == b.records && a.other == b.other && a.serial == b.serial)

/* The last unit before a position stands for the checksum of the bytes there. */
#define MARK(f, position) ((position) > 0 -> file[f].unit[(position) - 1] : 0)

inline add(f, value) {
    assert(file[f].size < UNITS);
    file[f].unit[file[f].size] = value;
    file[f].size++
}

inline cut(f, to) {
    d_step {
        do
        :: file[f].size > to -> file[f].size--; file[f].unit[file[f].size] = 0
        :: else -> break
        od
    }
}

/* Forget a file that has no name and no descriptor. */
inline gone(f) {
    if
    :: file[f].names == 0 && file[f].opens == 0 -> cut(f, 0); file[f].whole = false;
    :: else
    fi
}

inline make_file(result) {
    d_step {
        j = 1;
        do
        :: j <= FILES && (file[j].names || file[j].opens) -> j++
        :: else -> break
        od;
        assert(j <= FILES);
        result = j; file[j].names = 1; file[j].opens = 1
    }
}

/* files.read_lines and State.fold: whole lines from `position` on, up to `to`. */
inline fold(memory, position, f, to) {
    d_step {
        stop = (to < file[f].size -> to : file[f].size);
        do
        :: position < stop ->
            i = position;
            do
            :: i < stop && !NEWLINE(file[f].unit[i]) -> i++
            :: else -> break
            od;
            if :: i >= stop -> break :: else fi;
            if
            :: i == position + 1 && file[f].unit[i] == file[f].unit[position] + 1 ->
                memory = memory * 8 + file[f].unit[i] / 2
            :: else -> memory = memory * 8 + DAMAGED
            fi;
            position = i + 1
        :: else -> break
        od
    }
}

/* Store._base: what of the memory still holds. Every line that is kept is a record. */
inline base(h, identity_, limit) {
    d_step {
        if
#ifdef IDENTITY_ONLY
        :: v_identity == identity_ && v_position <= limit
#else
        :: h.generation == v_generation && v_identity == identity_ && v_position <= limit
#endif
#ifndef IDENTITY_ONLY
        :: h.generation == v_generation + 1 && v_generation != 0 && h.kept ->
            do
            :: v_position > h.kept -> memory = memory / 8; v_position = v_position - 2
            :: else -> break
            od
#endif
        :: else -> memory = 0; v_position = 0
        fi;
        v_generation = h.generation; v_identity = identity_
    }
}

/* repair.plan_repair: what to do with an announced append that was not finished. */
#define ADOPT 0
#define CUT 1
#define SPLICE 2
inline plan_repair(f, from, operation) {
    d_step {
        best = 0; best_at = from; best_stop = from; at = from;
        do
        :: at < file[f].size ->
            matched = 0; i = at;
            do
            :: matched < COUNT(operation) && i + 1 < file[f].size &&
               file[f].unit[i] == 2 * (FIRST(operation) + matched) &&
               file[f].unit[i + 1] == 2 * (FIRST(operation) + matched) + 1 ->
                matched++; i = i + 2
            :: else -> break
            od;
            if :: matched > best -> best = matched; best_at = at; best_stop = i :: else fi;
            if :: matched == COUNT(operation) -> break :: else fi;
            do
            :: at < file[f].size && !NEWLINE(file[f].unit[at]) -> at++
            :: else -> break
            od;
            at++
        :: else -> break
        od;
        ends = 0; i = best_stop;
        do
        :: i < file[f].size -> ends = ends + NEWLINE(file[f].unit[i]); i++
        :: else -> break
        od;
        if
        :: file[f].size == from || best == COUNT(operation) -> plan = ADOPT
#ifdef CUT_BLINDLY
        :: else -> plan = CUT
#else
        :: best_at == from && !ends && file[f].size - from < 2 * COUNT(operation) &&
           best < COUNT(operation) && file[f].size > from -> plan = CUT
        :: else -> plan = (best > 0 -> SPLICE : ADOPT)
#endif
        fi;
        cut_at = best_at; cut_stop = best_stop
    }
}

/* Whether records r and r + 1 … of an operation stand in a file: all, and one behind the other. */
inline find_operation(f, operation) {
    best = 0; matched = 0; i = 0;
    do
    :: i < file[f].size ->
        if
        :: !NEWLINE(file[f].unit[i]) && file[f].unit[i] / 2 >= FIRST(operation) &&
           file[f].unit[i] / 2 < FIRST(operation) + COUNT(operation) &&
           i + 1 < file[f].size && file[f].unit[i + 1] == file[f].unit[i] + 1 &&
           (i == 0 || NEWLINE(file[f].unit[(i > 0 -> i - 1 : 0)])) ->
            matched++;          /* records of it */
            if
            :: file[f].unit[i] / 2 == FIRST(operation) -> at = i
            :: else -> best = best + (i != at + 2 * (file[f].unit[i] / 2 - FIRST(operation)))
            fi
        :: else
        fi;
        i++
    :: else -> break
    od
}

/* The promises that the file has to keep, once it is settled. */
inline check_files() {
    d_step {
        assert(file[live].whole && file[live].names == 1);
        for (k : 1 .. OPERATIONS) {
            at = 0;
            find_operation(live, k);
            /* All or nothing, and once. */
            assert(best == 0 && (matched == 0 || matched == COUNT(k)));
            assert(!refused[k] || matched == 0);
            if
            :: acknowledged[k] && matched == 0 && !thrown_away[FIRST(k)] ->
                /* Then a replace has dropped it, and kept it. */
                ends = 0;
                for (j : 1 .. ROTATIONS) {
                    if
                    :: rotated[j] ->
                        at = 0;
                        find_operation(rotated[j], k);
                        ends = ends + (matched == COUNT(k) && best == 0)
                    :: else
                    fi
                }
                assert(ends > 0)
            :: else
            fi
        }
        if
        :: foreign_wrote && !thrown_away[FOREIGN] ->
            ends = 0;
            for (j : 0 .. ROTATIONS) {
                number = (j == 0 -> live : rotated[j]);
                i = 0;
                do
                :: number && i + 1 < file[number].size ->
                    ends = ends + (file[number].unit[i] == 2 * FOREIGN &&
                                   file[number].unit[i + 1] == 2 * FOREIGN + 1);
                    i++
                :: else -> break
                od
            }
            assert(ends > 0)    /* foreign bytes are never cut */
        :: else
        fi
    }
}

/* Memory equals file. */
inline check_memory() {
    d_step {
        digits = 0; number = 0;
        fold(digits, number, live, v_position);
        assert(digits == memory && number == v_position);
        digits = 0
    }
}

/* No half of an operation in what somebody has read: each one whole, its records together. */
inline check_operations(seen) {
    d_step {
        for (k : 1 .. OPERATIONS) {
            digits = seen; matched = 0; best = 0;
            do
            :: digits ->
                if
                :: digits % 8 >= FIRST(k) && digits % 8 < FIRST(k) + COUNT(k) ->
                    /* From the last one back: each stands right before the one found before it. */
                    assert(matched == 0 || other_digits == digits % 8 + 1);
                    matched++; other_digits = digits % 8
                :: else -> other_digits = 0
                fi;
                digits = digits / 8
            :: else -> break
            od;
            assert(matched == 0 || matched == COUNT(k))
        }
        digits = 0; other_digits = 0
    }
}

/* ---- a terminal ------------------------------------------------------------------------- */

#define FOR_A_REPLACE 0         /* why a new file takes the old one's place */
#define FOR_A_REPAIR 1
#define FOR_AN_UNDO 2

inline let_go() {
    holder[lock] = 0; lock = 0; inside--; within = false;
    file[data].opens--; gone(data); data = 0; size = 0
}

inline publish(committed_) {
    d_step {
        h.valid = true; h.committed = committed_; h.mark = MARK(data, committed_);
        h.intent = NOTHING; h.start = 0; h.records = 0; h.other = 0; h.other_kept = 0;
#ifndef NO_SERIAL
        h.serial++;
#endif
        copy_header(header[lock], h)
    }
}

proctype Terminal(byte me, operation, last) {
    Header h;
    byte lock, data, size, done, plan, cut_at, cut_stop, new, name, why;
    bool failed, within;
    /* Store.view */
    byte v_generation, v_identity, v_position;
    int memory;

next:
    if
    :: operation > last -> goto end
    :: else
    fi;
open:
    atomic {                    /* KernelLock.open */
        MAY_DIE;
        if
        :: lock_path == 0 -> lock_files++; assert(lock_files <= LOCKS); lock_path = lock_files
        :: else
        fi;
        lock = lock_path
    }
    atomic {                    /* _platform.try_lock, _platform.lock */
        MAY_DIE;
        holder[lock] == 0 -> holder[lock] = me
    }
    atomic {                    /* KernelLock.is_current */
        MAY_DIE;
        if
        :: lock_path != lock -> holder[lock] = 0; lock = 0; goto open
        :: else
        fi;
        inside++; within = true;
#ifndef SABOTAGE_WHILE_HELD
        assert(inside == 1)
#endif
    }
settle:
    atomic {                    /* Store._survey */
        MAY_DIE;
        copy_header(h, header[lock]);
        if
        :: file[live].names > 1 ->      /* files.drop_second_name */
            for (j : 1 .. ROTATIONS) {
                if :: rotated[j] == live -> rotated[j] = 0; file[live].names-- :: else fi
            }
        :: else
        fi;
        if
        :: data != live ->
            if :: data -> file[data].opens--; gone(data) :: else fi;
            data = live; file[live].opens++
        :: else
        fi;
        size = file[live].size;
        if
        :: h.valid && h.intent == NOTHING && h.identity == live && h.committed == size ->
            goto catch_up
        :: else
        fi
    }
    atomic {                    /* Store._heal: _last_good */
        MAY_DIE;
        if
        :: !h.valid ->
            clock++;            /* its microseconds are more than all generations so far */
            h.generation = 20 * clock; h.identity = data; h.committed = 0; h.kept = 0
        :: h.valid && h.intent == REPLACING && h.other == data ->
            h.generation++; h.identity = data; h.committed = file[data].size;
            h.kept = h.other_kept
        :: else ->
            if
            :: h.identity == data && file[data].size >= h.committed &&
               MARK(data, h.committed) == h.mark
            :: else ->
                h.generation++; h.identity = data; h.committed = 0; h.kept = 0;
                h.intent = NOTHING
            fi
        fi;
        if
        :: h.intent == REPLACING ->     /* files.remove_leftovers */
            for (k : 1 .. TERMINALS + 1) {
                if
                :: temporary[k] ->
                    file[temporary[k]].names--; gone(temporary[k]); temporary[k] = 0
                :: else
                fi
            }
        :: h.intent == APPENDING ->     /* Store._finish_append reads the tail */
            plan_repair(data, h.start, h.records);
            if
            :: plan == CUT -> goto repair
            :: plan == SPLICE -> why = FOR_A_REPAIR; goto exchange
            :: else
            fi
        :: else
        fi;
        goto close_last_line
    }
repair:
    atomic {                    /* files.put_aside, then _platform.truncate */
        MAY_DIE;
#ifndef RACE
        /* Nobody writes between the last look at the size and the cut: see RACE. */
        plan_repair(data, h.start, h.records);
        if :: plan != CUT -> goto settle :: else fi;
#endif
        cut(data, h.start)
    }
close_last_line:
    atomic {                    /* Store._close_last_line */
        MAY_DIE;
        if
        :: file[data].size && !NEWLINE(file[data].unit[file[data].size - 1]) ->
            file[data].writer == 0 -> add(data, 1)
        :: else
        fi
    }
    atomic { MAY_DIE; publish(file[data].size) }    /* Store._publish */
catch_up:
    atomic {                    /* Store._catch_up */
        plan = 0; cut_at = 0; cut_stop = 0;
        base(h, data, h.committed);
        fold(memory, v_position, data, h.committed);
        if
        :: operation == 0 ->    /* somebody who only looks what there is */
            MAY_DIE;
            check_memory(); check_files();
            let_go(); goto end
        :: REPLACES(operation) && v_position > KEPT -> why = FOR_A_REPLACE; goto exchange
        :: else
        fi
    }

    /* ---- Store._append ---- */
    atomic {                    /* LockFile.announce */
        MAY_DIE;
        d_step {
#ifndef NO_SERIAL
            h.serial++;
#endif
#ifndef NO_ANNOUNCEMENT
            copy_header(header[lock], h);
            header[lock].intent = APPENDING; header[lock].start = h.committed;
            header[lock].records = operation;
#endif
        }
    }
#ifdef PUBLISHED_FIRST
    atomic {
        MAY_DIE;
        d_step {
            h.serial++;
            copy_header(header[lock], h);
            header[lock].committed = h.committed + 2 * COUNT(operation)
        }
    }
#endif
    do                          /* files.write_all */
    :: done == 2 * COUNT(operation) -> break
    :: atomic {
        done < 2 * COUNT(operation) && (done > 0 || file[data].writer == 0) ->
        MAY_DIE;
        if
        :: fails > 0 -> fails--; failed = true; file[data].writer = 0; goto undo
        :: true
        fi;
        if :: done == 0 -> cut_at = file[data].size :: else fi;
        file[data].writer = me;
        add(data, 2 * FIRST(operation) + done);
        done++;
        if
        :: done == 2 * COUNT(operation) -> file[data].writer = 0; cut_stop = cut_at + done
        :: else
        fi
       }
    od;
    atomic {                    /* Store._place */
        MAY_DIE;
#ifdef PLACE_NOT_CHECKED
        cut_at = h.committed; cut_stop = h.committed + done;
#else
        if
        :: cut_at != h.committed && !NEWLINE(MARK(data, cut_at)) -> goto undo   /* _Overtaken */
        :: else
        fi;
#endif
        fold(memory, v_position, data, cut_stop)
    }
#ifdef PUBLISHED_AFTER_UNLOCKING
    atomic { MAY_DIE; holder[lock] = 0; inside--; within = false }
    atomic {
        MAY_DIE; publish(cut_stop);
        acknowledged[operation] = true; file[data].opens--; gone(data); data = 0; lock = 0; size = 0;
        goto over
    }
#endif
    atomic { MAY_DIE; publish(cut_stop) }           /* Store._publish */
release:
    atomic {                    /* LockFile.release, then CommitQueue._settle */
        MAY_DIE;
        check_memory();
        if :: failed -> refused[operation] = true :: else -> acknowledged[operation] = true fi;
        let_go();
        goto over
    }

    /* ---- Store._undo_append ---- */
undo:
    atomic {
        MAY_DIE;
        if
        :: done == 0
        :: done > 0 ->
            cut_stop = cut_at + done;
#ifndef UNDONE_BLINDLY
            if
            :: cut_stop < file[data].size -> why = FOR_AN_UNDO; goto exchange
            :: else
            fi;
#endif
            cut(data, cut_at)   /* _platform.truncate */
        fi
    }
    atomic { MAY_DIE; publish(h.committed) }        /* LockFile.publish */
undone:
    atomic {
        done = 0; cut_at = 0; cut_stop = 0;
        if
        :: failed -> base(h, data, h.committed); goto release
        :: else -> goto settle
        fi
    }

    /* ---- Store._exchange ---- */
exchange:
    atomic {                    /* files.open_temporary */
        MAY_DIE;
        size = file[data].size;
        if
        :: why == FOR_A_REPLACE && size != h.committed -> goto settle       /* _Overtaken */
        :: else
        fi;
        if :: temporary[me] -> file[temporary[me]].names--; gone(temporary[me]) :: else fi;
        make_file(new); temporary[me] = new
    }
#ifdef SWAPPED_BEFORE_FILLED
    atomic {
        MAY_DIE;
        file[live].names--; gone(live); live = new; temporary[me] = 0
    }
#endif
    atomic {                    /* Store._fill, synced */
        MAY_DIE;
        d_step {
            i = 0;
            do
            :: i < size ->
                if
                :: why == FOR_A_REPLACE && i < KEPT -> add(new, file[data].unit[i])
                :: why != FOR_A_REPLACE && (i < cut_at || i >= cut_stop) ->
                    add(new, file[data].unit[i])
                :: else
                fi;
                i++
            :: else -> break
            od;
            if
            :: why == FOR_A_REPLACE ->
                for (k : 0 .. 2 * COUNT(operation) - 1) { add(new, 2 * FIRST(operation) + k) }
            :: else ->
                if
                :: file[new].size && !NEWLINE(file[new].unit[file[new].size - 1]) -> add(new, 1)
                :: else
                fi
            fi;
            file[new].whole = true; done = file[new].size
        }
    }
#ifndef REPLACE_NOT_ANNOUNCED
    if
    :: why == FOR_A_REPLACE ->
        atomic {                /* LockFile.announce */
            MAY_DIE;
            d_step {
                h.serial++;
                copy_header(header[lock], h);
                header[lock].intent = REPLACING; header[lock].other = new;
                header[lock].other_kept = KEPT
            }
        }
    :: else
    fi;
#endif
#if !defined(OLD_NOT_KEPT) && !defined(KEPT_AFTER_THE_SWAP)
    atomic {                    /* files.keep_old */
        MAY_DIE;
        d_step {
            name = 1;
            do
            :: name <= ROTATIONS && rotated[name] -> name++
            :: else -> break
            od;
            assert(name <= ROTATIONS);
            rotated[name] = data; file[data].names++
        }
    }
#endif
    atomic {                    /* Store._require_untouched; _undo_exchange if it was touched */
        MAY_DIE;
        if
        :: lock_path == lock && live == data && file[data].size == size
        :: else ->
            file[new].opens--; file[new].names--; temporary[me] = 0; gone(new); new = 0;
            if :: name -> rotated[name] = 0; file[data].names--; name = 0 :: else fi;
            if :: why == FOR_A_REPLACE -> publish(h.committed) :: else fi;
            done = 0;
            if :: why == FOR_AN_UNDO -> goto undone :: else -> goto settle fi
        fi
    }
#ifndef SWAPPED_BEFORE_FILLED
    atomic {                    /* _platform.replace_file */
        MAY_DIE;
        file[live].names--; gone(live); live = new; temporary[me] = 0;
        assert(file[live].whole)
    }
#endif
#ifdef KEPT_AFTER_THE_SWAP
    atomic { MAY_DIE; rotated[1] = data; file[data].names++ }
#endif
    atomic {                    /* Store._publish: the next generation */
        MAY_DIE;
        file[data].opens--; gone(data); data = new; new = 0; name = 0;
        h.generation++; h.identity = data;
        h.kept = (why == FOR_A_REPLACE -> KEPT : cut_at);
        base(h, data, done); fold(memory, v_position, data, done);
        publish(done);
        done = 0;
        if
        :: why == FOR_A_REPLACE -> goto release
        :: why == FOR_A_REPAIR -> goto close_last_line
        :: why == FOR_AN_UNDO -> goto undone
        fi
    }

died:
    atomic {                    /* the kernel frees the lock and closes the files */
        if :: lock && holder[lock] == me -> holder[lock] = 0 :: else fi;
        inside = inside - within; within = false;
        if
        :: data ->
            if :: file[data].writer == me -> file[data].writer = 0 :: else fi;
            file[data].opens--; gone(data)
        :: else
        fi;
        if :: new -> file[new].opens--; gone(new) :: else fi;
        v_generation = 0; v_identity = 0; v_position = 0; memory = 0
    }
over:
    atomic {
        lock = 0; data = 0; size = 0; new = 0; name = 0; done = 0; plan = 0; cut_at = 0;
        cut_stop = 0; why = 0; failed = false;
        h.valid = 0; h.generation = 0; h.identity = 0; h.committed = 0; h.kept = 0; h.mark = 0;
        h.intent = 0; h.start = 0; h.records = 0; h.other = 0; h.other_kept = 0; h.serial = 0;
        operation = operation + (operation > 0)     /* who only looks tries until he has */
    }
    goto next;
end:
    finished++
}

/* ---- the others ------------------------------------------------------------------------- */

#if defined(NO_SECOND_LOOK) || defined(HEADER_IGNORED)
#define NOT_WRITTEN_MEANWHILE true
#elif defined(UNLINKED_LOCK_FILE_BELIEVED)
#define NOT_WRITTEN_MEANWHILE (lock -> SAME(again, h) : lock_path == 0)
#elif defined(MISSING_LOCK_FILE_BELIEVED)
#define NOT_WRITTEN_MEANWHILE (lock == 0 || (SAME(again, h) && lock == lock_path))
#else
#define NOT_WRITTEN_MEANWHILE (lock == lock_path && (lock == 0 || SAME(again, h)))
#endif

/* What was read is of no use: the memory was not changed yet. */
inline drop_look() {
    file[data].opens--; gone(data); data = 0; size = 0; committed = 0; tail = 0; tail_position = 0;
    memory = seen; v_position = seen_position; v_generation = seen_generation;
    v_identity = seen_identity;
    goto attempt
}

#ifdef LOOKS
/* Somebody who only reads: Store.look, without the lock. */
proctype Reader() {
    Header h, again;
    byte lock, data, size, committed, looks, attempts, acknowledged_before;
    byte v_generation, v_identity, v_position, v_mark;
    byte seen_generation, seen_identity, seen_position, tail_position;
    int memory, tail, seen;

look:
    if :: looks == LOOKS -> goto end :: else -> looks++; attempts = 0 fi;
    d_step {
        acknowledged_before = 0;
        for (k : 1 .. OPERATIONS) {
            acknowledged_before = acknowledged_before + (acknowledged[k] << k)
        }
    }
attempt:
    if :: attempts == ATTEMPTS -> goto look :: else -> attempts++ fi;
    lock = lock_path;           /* LockFile.peeking */
    d_step {                    /* Peek */
        if :: lock -> copy_header(h, header[lock]) :: else -> h.valid = false; h.intent = 0 fi;
#ifndef STEADY_LOOK
    }
    d_step {
#endif
        data = live; file[data].opens++             /* _platform.open_file */
    }
    atomic {                    /* os.fstat */
        size = file[data].size; committed = h.committed;
        if
#ifdef HEADER_IGNORED
        :: true -> h.generation = 0; h.kept = 0; h.intent = NOTHING; committed = 0
#else
        :: !h.valid -> h.generation = 0; h.kept = 0; committed = 0
        :: h.valid && h.intent == REPLACING && h.other == data ->
            committed = size
        :: h.valid && (h.intent != REPLACING || h.other != data) ->
            if
            :: data != h.identity || size < committed ->
                file[data].opens--; gone(data); data = 0;
                goto attempt
            :: else
            fi
#endif
        fi
    }
    if
    :: h.valid && h.intent == REPLACING && h.other == data ->
#ifndef REPLACING_BELIEVED
        atomic {                /* Peek: nobody has appended behind the new file yet */
            copy_header(again, header[lock]);
            if
            :: SAME(again, h)
            :: else -> file[data].opens--; gone(data); data = 0; goto attempt
            fi
        }
#endif
        d_step { h.generation++; h.kept = h.other_kept }
    :: else
    fi;
    d_step {                    /* files.read_lines, State.fold: up to committed */
        base(h, data, size);
        if
        :: h.generation == 0 && MARK(data, v_position) != v_mark -> memory = 0; v_position = 0
        :: else
        fi;
        if :: v_position < committed -> fold(memory, v_position, data, committed) :: else fi
    }
    if
    :: size > v_position && (!h.valid || h.intent == NOTHING) ->
        d_step {                /* the same behind it: lines of programs without our lock */
            tail = memory; at = v_position;
            fold(tail, at, data, size);
            tail_position = at
        }
        atomic {                /* Store._still: Peek once more, and LockFile.is_at_its_path */
            if :: lock -> copy_header(again, header[lock]) :: else fi;
            if
            :: NOT_WRITTEN_MEANWHILE -> memory = tail; v_position = tail_position
            :: else ->
                if
                :: !h.valid -> drop_look()
                :: else
                fi
            fi;
            tail = 0; tail_position = 0
        }
    :: else
    fi;
    d_step {
        v_mark = (h.generation -> 0 : MARK(data, v_position));
        check_operations(memory);
        digits = 0; number = 0;
        fold(digits, number, data, v_position);
        assert(digits == memory && number == v_position);   /* memory equals file */
        if
        :: h.generation && h.generation == seen_generation ->
            /* The same generation only grows. */
            digits = memory;
            do
            :: digits > seen -> digits = digits / 8
            :: else -> break
            od;
            assert(digits == seen)
        :: else
        fi;
        seen = memory; seen_generation = h.generation; seen_identity = v_identity;
        seen_position = v_position;
#ifdef ONLY_APPENDS
        /* What was acknowledged before it looked is there. */
        for (k : 1 .. OPERATIONS) {
            digits = memory; matched = 0;
            do
            :: digits -> matched = matched + (digits % 8 == FIRST(k)); digits = digits / 8
            :: else -> break
            od;
            assert(matched || !(acknowledged_before & (1 << k)))
        }
#endif
        digits = 0;
        file[data].opens--; gone(data); data = 0; size = 0; committed = 0; lock = 0;
        again.valid = 0; again.generation = 0; again.identity = 0; again.committed = 0;
        again.kept = 0; again.mark = 0; again.intent = 0; again.start = 0; again.records = 0;
        again.other = 0; again.other_kept = 0; again.serial = 0
    }
    goto look;
end:
    finished++
}
#endif

#if FOREIGN
/* A program that takes no lock: it opens the file, and appends a line some time later. */
proctype Foreigner() {
    byte data;
    d_step { data = live; file[data].opens++ }
    atomic {
        file[data].writer == 0 ->
        add(data, 2 * FOREIGN);
#ifdef FOREIGN_HALVES
    }
    atomic {
        file[data].writer == 0 ->
#endif
        add(data, 2 * FOREIGN + 1);
        foreign_wrote = true
    }
    d_step { file[data].opens--; gone(data); data = 0; finished++ }
}
#endif

#ifdef ADOPTED_WITHOUT_LOCK
/* A reader that finds foreign lines and notes them in the header itself. */
proctype Adopter() {
    byte size;
    d_step { size = file[live].size; at = header[1].committed }
    if
    :: size > at ->
        d_step { header[1].committed = size; header[1].intent = NOTHING }
    :: else
    fi;
    finished++
}
#endif

#ifdef USER_REMOVES
/* A user who removes a rotated file, whose number goes to the next one that is made. */
proctype User() {
end:
    atomic {
        rotated[1] && file[rotated[1]].names == 1 ->
        d_step {
            i = 0;
            do
            :: i < file[rotated[1]].size ->
                thrown_away[file[rotated[1]].unit[i] / 2] = true; i++
            :: else -> break
            od;
            file[rotated[1]].names--; gone(rotated[1]); rotated[1] = 0
        }
    }
}
#endif

#ifdef SABOTAGE_WHILE_HELD
#define MAY_REMOVE true
#else
#define MAY_REMOVE (holder[lock_path] == 0)
#endif

#if SABOTAGES
/* Somebody who removes the lock file. */
proctype Saboteur() {
    do
    :: atomic {
        sabotages > 0 && lock_path && MAY_REMOVE -> lock_path = 0; sabotages--
       }
    :: finished >= ACTORS || sabotages == 0 -> break
    od
}
#endif

inline session_with_one_record() {
    live = 1;
    file[1].names = 1; file[1].whole = true; file[1].size = 2;
    file[1].unit[0] = 2; file[1].unit[1] = 3;
#ifndef NO_LOCK_FILE_YET
    lock_path = 1; lock_files = 1;
    header[1].valid = true; header[1].generation = 1; header[1].identity = 1;
    header[1].committed = 2; header[1].mark = 3
#endif
}
