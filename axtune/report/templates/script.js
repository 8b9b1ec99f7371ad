"use strict";
// Values of a step: under the pointer, under a finger, or chosen with the arrow keys.
for (const chart of document.querySelectorAll(".chart")) {
  const data = JSON.parse(chart.dataset.values);
  const plot = chart.querySelector(".plot");
  const cursor = plot.querySelector(".cursor");
  const dots = [...plot.querySelectorAll(".at")];
  const values = [...chart.querySelectorAll(".value")];
  const where = chart.querySelector(".step");
  const last = values.map((value) => value.textContent);
  const whereLast = where.textContent;
  const steps = [...new Set(data.series.flatMap((one) => one.map((point) => point[0])))];
  steps.sort((a, b) => a - b);
  let chosen = -1;

  const percent = (step) =>
    data.last > data.first ? (100 * (step - data.first)) / (data.last - data.first) + "%" : "50%";

  function show(index) {
    chosen = Math.max(0, Math.min(steps.length - 1, index));
    const step = steps[chosen];
    where.textContent = "step " + step.toLocaleString("en");
    cursor.setAttribute("x1", percent(step));
    cursor.setAttribute("x2", percent(step));
    data.series.forEach((one, number) => {
      // Evaluations are at some steps only: the one before stands until the next.
      const point = one.filter((each) => each[0] <= step).pop();
      values[number].textContent = point ? point[2] : "–";
      dots[number].classList.toggle("none", !point);
      if (point) {
        dots[number].setAttribute("cx", percent(point[0]));
        dots[number].setAttribute("cy", point[1]);
      }
    });
    chart.classList.add("reading");
  }

  function rest() {
    chosen = -1;
    chart.classList.remove("reading");
    values.forEach((value, number) => { value.textContent = last[number]; });
    where.textContent = whereLast;
  }

  function nearest(event) {
    const box = plot.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    const at = data.first + share * (data.last - data.first);
    let best = 0;
    steps.forEach((step, index) => {
      if (Math.abs(step - at) < Math.abs(steps[best] - at)) best = index;
    });
    show(best);
  }

  plot.addEventListener("pointermove", nearest);
  plot.addEventListener("pointerdown", nearest);
  plot.addEventListener("pointerleave", (event) => {
    if (event.pointerType === "mouse" && document.activeElement !== plot) rest();
  });
  plot.addEventListener("focus", () => { if (chosen < 0) show(steps.length - 1); });
  plot.addEventListener("blur", rest);
  plot.addEventListener("keydown", (event) => {
    const moves = { ArrowLeft: chosen - 1, ArrowRight: chosen + 1, Home: 0, End: steps.length - 1 };
    if (event.key in moves) {
      event.preventDefault();
      show(moves[event.key]);
    } else if (event.key === "Escape") {
      plot.blur();
    }
  });
}
