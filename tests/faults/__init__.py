"""Faults of the whole service, and the tests that cover each fault.

Test files without a folder are in this folder. A word in brackets is part of a test's name. `soak`
is `python -m tests.faults.soak`, which is started by hand.

    F1   workers killed repeatedly          test_processes (workers_killed), soak
    F2   crash at each step of an export    test_crash_matrix; at every step, over fakes:
                                            unit/run/test_run_slice (a_crash_at_any_seam);
                                            of a partitioned export:
                                            unit/run/test_partition_slices, test_partitions
    F3   worker suspended for longer than   test_processes (stopped_for_longer), soak;
         its lease                          unit/run/test_run_slice (slept_through_its_lease),
                                            test_partitions (sleeps_at_any_seam)
    F4   Redis killed under load            test_processes (a_redis_killed), soak;
                                            test_fleet_broker (outlives_restarts)
    F5   power failure of the Redis host    not tested: this needs a disk that loses unsynced
                                            writes. The check at the start that Redis syncs each
                                            write: contract/store/test_redis, test_fleet_startup
    F6   silent network links               test_fleet_broker (silent)
    F7   doorbells lost or duplicated       test_fleet_broker (doorbells), soak; with the API
                                            killed as well: test_processes (every_wake_up_was_lost)
    F8   S3 killed, overloaded or with      test_processes (an_s3_killed), soak; single faulty
         false answers                      responses: integration/s3_storage. A store without
                                            UploadPartCopy or If-None-Match is not tested
    F9   upstream with errors, false pages  soak --upstream-faults; unit/sources/http/test_client,
         or slow bodies                     integration/board_faults
    F10  postings that change during an     unit/run/test_page_reader, integration/board_faults
         export
    F11  worker clock wrong by hours        test_fleet_deploy (wall_clock)
    F12  Redis out of memory                contract/store/test_redis (a_full_redis). A full disk
                                            is not tested: this needs a separate file system
    F13  urgent exports first               contract/store/test_order
    F14  one user's many exports do not     contract/store/test_order
         delay other users
    F15  cancel at any time                 unit/run/test_run_slice (cancel),
                                            contract/store/test_ends, integration/test_worker,
                                            test_partitions (withdrawn_at_any_seam); not during
                                            an outage
    F16  rolling deploy                     test_processes (a_rolling_deploy), soak,
                                            test_fleet_deploy, test_partitions (knows_no)
    F17  export that kills its workers      test_fleet_poison
    F18  all faults together for hours      soak, for hours only on a dedicated machine
    F19  POST repeated after a lost         contract/store/test_idempotency. The soak test does not
         response                           repeat a POST: an export without a response must end too
    F20  new versions of celery, kombu and  all tests here use the installed versions: run them
         redis-py                           before a version is changed
"""

from __future__ import annotations
