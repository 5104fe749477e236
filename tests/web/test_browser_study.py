"""The study in a real browser: by keyboard, on a phone, and without JavaScript."""

import pytest


def test_a_study_can_be_completed_by_keyboard(open_page, server, study):
    page = open_page(f"{server}/study/faces")
    page.locator("button:focus").wait_for()
    page.keyboard.press("Enter")
    keys = ["ArrowLeft", "ArrowRight"] * 5
    for number, key in enumerate(keys, start=1):
        page.get_by_text(f"{number} of 10").wait_for()
        page.wait_for_load_state()  # the script then handles keys
        page.keyboard.press(key)
    page.get_by_text("Thank you").wait_for()
    answers = study.answers()
    assert [answer.chose_left for answer in answers] == [key == "ArrowLeft" for key in keys]
    assert all(answer.showings == 1 for answer in answers)


def test_images_are_hidden_after_the_exposure_time(open_page, server, study):
    page = open_page(f"{server}/study/faces")
    page.get_by_role("button").click()
    image = page.locator(".frame img").first
    image.wait_for(state="attached")
    visible = "element => getComputedStyle(element).visibility"
    # By the animation's own clock, so that the speed of the machine does not matter.
    duration = "element => element.getAnimations()[0].effect.getComputedTiming().endTime"
    assert image.evaluate(duration) == pytest.approx(301)
    page.wait_for_function(
        "() => getComputedStyle(document.querySelector('.frame img')).visibility === 'hidden'"
    )
    assert [img.evaluate(visible) for img in page.locator(".frame img").all()] == ["hidden"] * 2
    seek = "element => { const a = element.getAnimations()[0]; a.pause(); a.currentTime = 299; }"
    image.evaluate(seek)
    assert image.evaluate(visible) == "visible"


@pytest.mark.parametrize("scripts", [True, False])
def test_a_study_works_on_a_phone_with_and_without_javascript(scripts, open_page, server, study):
    phone = {"viewport": {"width": 360, "height": 640}, "has_touch": True, "is_mobile": True}
    page = open_page(f"{server}/study/faces", java_script_enabled=scripts, **phone)
    page.get_by_role("button").tap()
    for number in range(1, 11):
        page.get_by_text(f"{number} of 10").wait_for()
        if number == 1:
            boxes = [each.bounding_box() for each in page.locator(".frame, button").all()]
            assert len(boxes) == 4
            assert all(b["x"] >= 0 and b["x"] + b["width"] <= 360 for b in boxes)
            assert all(b["y"] + b["height"] <= 640 for b in boxes)
            assert all(min(b["width"], b["height"]) >= 44 for b in boxes)  # large enough to tap
        page.get_by_role("button", name="Right").tap()
    page.get_by_text("Thank you").wait_for()
    assert len(study.answers()) == 10
    assert not any(answer.chose_left for answer in study.answers())


def test_a_double_click_counts_once(open_page, server, study):
    page = open_page(f"{server}/study/faces")
    page.get_by_role("button").click()
    page.get_by_role("button", name="Left").dblclick()
    page.get_by_text("2 of 10").wait_for()
    assert [answer.position for answer in study.answers()] == [1]


def test_going_back_does_not_show_an_answered_pair(open_page, server, study):
    page = open_page(f"{server}/study/faces")
    page.get_by_role("button").click()
    page.get_by_role("button", name="Left").click()
    page.get_by_text("2 of 10").wait_for()
    page.go_back()
    page.get_by_text("2 of 10").wait_for()
    assert len(study.answers()) == 1
