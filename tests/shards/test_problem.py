from offrl.shards import Problem


def test_the_line_says_what_it_is_and_how_to_mend_it():
    assert str(Problem("no end", "Values are guessed.", "log the end")) == "no end; log the end"
