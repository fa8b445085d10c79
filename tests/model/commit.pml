/* Appends: two terminals, one record and two records in one operation, and what gets in their way.

   1. Terminal 1 appends two records in one operation, terminal 2 one; then somebody takes the lock,
      settles what is found, and looks whether every promise is kept.
   2. Meanwhile a terminal is killed at any step, a write is cut short by a full disk, a program
      without our lock appends a line, a reader looks twice, somebody removes the lock file:
      what is defined decides.
   3. The session begins with record 1. Record 2 and 3 are operation 1, 4 is operation 2, and 5 is
      the foreign line. */

#define UNITS 14
#define TERMINALS 2
#define OPERATIONS 2
#define FIRST(operation) ((operation) == 1 -> 2 : 4)
#define COUNT(operation) ((operation) == 1 -> 2 : 1)
#define REPLACES(operation) false
#define KEPT 0
#define ONLY_APPENDS
#ifdef WITH_FOREIGN
#define FOREIGN 5
#define FOREIGNERS 1
#else
#define FOREIGNERS 0
#endif
#ifdef WITH_READER
#define LOOKS 2
#define ATTEMPTS 3
#define READERS 1
#else
#define READERS 0
#endif
#define ACTORS (TERMINALS + FOREIGNERS + READERS)

#include "store.inl"

init {
    atomic {
        session_with_one_record();
        run Terminal(1, 1, 1);
        run Terminal(2, 2, 2);
#ifdef LOOKS
        run Reader();
#endif
#if FOREIGN
        run Foreigner();
#endif
#ifdef ADOPTED_WITHOUT_LOCK
        run Adopter();
#endif
#if SABOTAGES
        run Saboteur();
#endif
    }
    atomic { finished >= ACTORS -> run Terminal(TERMINALS + 1, 0, 0) }
    finished > ACTORS
}

/* Every wait ends. */
ltl ends { <> (finished > ACTORS) }
