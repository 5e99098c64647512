from feedback.replay import choose_replay_documents


def test_replay_is_bounded_without_the_documents_of_the_feedback_and_the_same_each_time() -> None:
    learned = [str(number) for number in range(50)]
    chosen = choose_replay_documents(learned, ["3", "49"], 20)
    assert len(set(chosen)) == 20
    assert set(chosen) <= set(learned) - {"3", "49"}
    assert choose_replay_documents(learned, ["3", "49"], 20) == chosen
    assert sorted(choose_replay_documents(learned[:9], [], 20)) == learned[:9]


def test_replay_changes_as_documents_are_learned_so_that_each_of_them_is_replayed_in_time() -> None:
    learned = [str(number) for number in range(60)]
    chosen = {each for count in range(20, 60) for each in choose_replay_documents(learned[:count], [], 5)}
    assert len(chosen) > 45


def test_only_the_latest_documents_are_replayed_since_the_cache_holds_no_more() -> None:
    learned = [str(number) for number in range(5000)]
    assert min(map(int, choose_replay_documents(learned, [], 32))) >= 4750
