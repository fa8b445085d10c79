/* Turns: what one terminal writes in one go stays together.

   1. Terminals 1 and 2 have a turn each, of two messages; terminal 3 appends a message without one.
      A commit is one step here, under the commit lock: commit.pml shows that it may be.
   2. A turn takes the turn's lock, then, under the commit lock, writes its card and its number into
      the header. It ends the other way round. Who meets a number waits for the turn's lock, behind
      a turnstile, and commits while holding it.
   3. A number whose lock is free is a turn that was interrupted. Who finds one settles it, holding
      the turn's lock, or leaves it to others.
   4. Any terminal may be killed before any step, and begins its operation again.
   5. With GREEDY terminal 1 begins one turn after the other, for ever, and never dies. A turn takes
      longer than it takes to wake up: during one, whoever waits at an open turnstile goes through.
      The turn's lock itself is free for an instant only. */

#ifndef CRASHES
#define CRASHES 2
#endif
#define TERMINALS 3
#define LENGTH 12

byte commit_lock, turn_lock, turnstile;         /* who has each; 0: nobody */
byte turn;                                      /* the number in the header; 0: none */
byte card;                                      /* the number on the card behind the turn's lock */
byte crashes = CRASHES;
#ifdef GREEDY
byte waiting;                   /* at the turnstile */
#endif

/* What happened, for the assertions. */
byte tokens;                    /* numbers drawn; each is drawn once */
bool alive[LENGTH + 1];         /* the turns whose terminal lives, and has not ended them */
bool known_dead[LENGTH + 1];    /* those that were interrupted, and not settled */
byte latest;                    /* the turn that the last message is part of */
bool closed[LENGTH + 1];        /* those behind which there is a message that is not theirs */
byte finished;
bool served;

#define MAY_DIE if :: true :: crashes > 0 -> crashes--; goto died fi

inline write_message(of_turn) {
    assert(of_turn == 0 || !closed[of_turn]);           /* turns are contiguous */
    if
    :: latest != of_turn && latest -> closed[latest] = true
    :: else
    fi;
    latest = of_turn
}

/* Nobody writes while a turn is on, or was interrupted, but its own terminal. */
inline check_nobody_joins(mine) {
    for (number : 1 .. LENGTH) {
        assert(number == mine || (!alive[number] && !known_dead[number]))
    }
}

inline lock_commits() {
#ifdef WAITS_INSIDE
    atomic { MAY_DIE; commit_lock == 0 || commit_lock == me -> commit_lock = me }
#else
    atomic { MAY_DIE; commit_lock == 0 -> commit_lock = me }
#endif
}

/* TurnLock.try_acquire, then Ticket.wait: TurnLock.acquire. */
inline take_turn_lock() {
#ifdef NO_TURNSTILE
    atomic { MAY_DIE; turn_lock == 0 -> turn_lock = me }
#else
#ifdef GREEDY
    waiting++;
    atomic { turnstile == 0 -> turnstile = me; waiting-- }
#else
    atomic { MAY_DIE; turnstile == 0 -> turnstile = me }
#endif
    atomic { MAY_DIE; turn_lock == 0 -> turn_lock = me }
    atomic { MAY_DIE; turnstile = 0 }
#endif
}

inline mark_end(which) {
    alive[which] = false; known_dead[which] = false;
    if :: latest == which -> closed[which] = true; latest = 0 :: else fi
}

/* What InterruptedTurn.keep and roll_back do. */
inline settle_interrupted() {
    found = turn;                                       /* Store.turn_that_is_on */
    if
    :: found ->
        turn_lock == 0 || turn != found;                /* Turns.held; who sees it asks again */
        take_turn_lock();
        lock_commits();
        atomic {                                        /* Store._require_turn, _mark_turn */
            MAY_DIE;
            if
#ifdef SETTLES_ANY_TURN
            :: turn ->
                assert(turn == found);
#else
            :: turn == found ->
#endif
                assert(!alive[turn]);                   /* it was interrupted indeed */
                mark_end(turn); turn = 0
            :: else                                     /* TurnOver */
            fi;
            commit_lock = 0
        }
        atomic { MAY_DIE; turn_lock = 0 }
    :: else
    fi;
    found = 0
}

proctype TakesTurn(byte me) {
    byte mine, messages, found, number;
begin:
#ifdef NUMBER_BEFORE_LOCK
    lock_commits();
    atomic {
        MAY_DIE;
        if :: turn -> commit_lock = 0; goto begin_again :: else fi;
        tokens++; mine = tokens; turn = mine; alive[mine] = true; commit_lock = 0
    }
    take_turn_lock();
#else
    take_turn_lock();
    lock_commits();
#ifndef NO_NUMBER
    atomic {                    /* Store._require_turn */
        MAY_DIE;
        if
        :: turn ->              /* TurnInterrupted */
            assert(!alive[turn]);
            commit_lock = 0; goto interrupted
        :: else
        fi
    }
#endif
    atomic { MAY_DIE; tokens++; assert(tokens <= LENGTH); mine = tokens; card = mine }  /* TurnLock.write_card */
    atomic {                    /* Store._mark_turn */
        MAY_DIE;
#ifndef NO_NUMBER
        turn = mine;
#endif
        alive[mine] = true; commit_lock = 0
    }
#endif
    if :: me == 2 -> served = true :: else fi;
    do
    :: messages == 2 -> break
    :: else ->
        lock_commits();
        atomic {                /* Store._require_turn, _append */
            MAY_DIE;
#ifndef NO_NUMBER
            assert(turn == mine);
#endif
            check_nobody_joins(mine); write_message(mine);
            messages++; commit_lock = 0
        }
    od;
#ifdef GREEDY
    if :: me == 1 -> !(waiting && turnstile == 0) :: else fi;
#endif
#ifdef LOCK_BEFORE_NUMBER
    atomic { MAY_DIE; turn_lock = 0 }
#endif
    lock_commits();
    atomic {                    /* Store._mark_turn */
        MAY_DIE;
        turn = 0; mark_end(mine); commit_lock = 0
    }
#ifndef LOCK_BEFORE_NUMBER
    atomic { MAY_DIE; turn_lock = 0 }                   /* TurnBase._is_over */
#endif
    mine = 0; messages = 0;
#ifdef GREEDY
    if
    :: me == 1 -> tokens = 0; goto begin
    :: else
    fi;
#endif
    goto end;
#ifdef NUMBER_BEFORE_LOCK
begin_again:
    turn == 0;
    goto begin;
#endif
interrupted:
    atomic { MAY_DIE; turn_lock = 0 }
    settle_interrupted();
    goto begin;
died:
    atomic {                    /* the kernel frees the locks */
        if :: mine && alive[mine] -> alive[mine] = false; known_dead[mine] = true :: else fi;
        if :: commit_lock == me -> commit_lock = 0 :: else fi;
        if :: turn_lock == me -> turn_lock = 0 :: else fi;
        if :: turnstile == me -> turnstile = 0 :: else fi;
        mine = 0; messages = 0; found = 0
    }
    settle_interrupted();
    goto begin;
end:
    finished++
}

/* BlockingSession._perform: an append without a turn. */
proctype Appends(byte me) {
    byte found, number, mine;
begin:
#ifdef LOOKS_BEFORE_LOCKING
    found = turn;
    if :: found -> found = 0; goto wait :: else fi;
#endif
    lock_commits();
    atomic {                    /* Store._require_turn */
        MAY_DIE;
        if
#if defined(NO_NUMBER) && !defined(LOOKS_AT_THE_LOCK)
        :: true
#elif defined(LOOKS_AT_THE_LOCK)
        :: turn_lock -> commit_lock = 0; goto wait
        :: else
#elif defined(LOOKS_BEFORE_LOCKING)
        :: true
#else
        :: turn ->              /* TurnHeld */
#ifndef WAITS_INSIDE
            commit_lock = 0;
#endif
            goto wait
        :: else
#endif
        fi;
        check_nobody_joins(0); write_message(0);
        commit_lock = 0; goto end
    }
wait:
    take_turn_lock();
    lock_commits();
    atomic {
        MAY_DIE;
        if
#ifndef JOINS
        :: turn ->              /* TurnInterrupted: alone=True */
            assert(!alive[turn]);
            commit_lock = 0
#endif
        :: else ->
            check_nobody_joins(0); write_message(0);
            commit_lock = 0; found = 1
        fi
    }
    atomic { MAY_DIE; turn_lock = 0; if :: found -> found = 0; goto end :: else fi }
    settle_interrupted();
    goto begin;
died:
    atomic {
        if :: commit_lock == me -> commit_lock = 0 :: else fi;
        if :: turn_lock == me -> turn_lock = 0 :: else fi;
        if :: turnstile == me -> turnstile = 0 :: else fi;
        found = 0; goto begin
    }
end:
    finished++
}

init {
    atomic {
        run TakesTurn(1); run TakesTurn(2);
#ifndef GREEDY
        run Appends(3)
#endif
    }
}

/* Every wait ends. */
ltl ends { <> (finished == TERMINALS) }
/* Who waits for the turn gets it, however often others take it. */
ltl fair { <> served }
