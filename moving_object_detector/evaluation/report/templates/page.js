'use strict';
for (const table of document.querySelectorAll('table.sortable')) {
  const headers = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
  headers.forEach((header, column) => {
    const button = header.querySelector('button');
    if (!button) return;
    button.addEventListener('click', () => {
      const was = header.getAttribute('aria-sort');
      const first = header.dataset.first || 'descending';
      const order = was === 'ascending' ? 'descending' : was === 'descending' ? 'ascending' : first;
      headers.forEach((other) => other.removeAttribute('aria-sort'));
      header.setAttribute('aria-sort', order);
      const sign = order === 'ascending' ? 1 : -1;
      const key = (row) => row.cells[column].dataset.v ?? row.cells[column].textContent.trim();
      const rows = [...table.tBodies[0].rows];
      rows.sort((a, b) => {
        const [x, y] = [key(a), key(b)];
        if (x === '' || y === '') return (x === '') - (y === '');
        const difference = header.dataset.text === undefined ? x - y : x.localeCompare(y, undefined, { numeric: true });
        return sign * difference;
      });
      table.tBodies[0].append(...rows);
    });
  });
}
for (const field of document.querySelectorAll('input[type=search]')) {
  field.addEventListener('input', () => {
    const wanted = field.value.trim().toLowerCase();
    for (const element of document.querySelectorAll('[data-name]')) {
      element.hidden = !element.dataset.name.toLowerCase().includes(wanted);
    }
  });
}
const dialog = document.querySelector('dialog');
for (const button of document.querySelectorAll('button.zoom')) {
  button.addEventListener('click', () => {
    const caption = button.parentElement.querySelector('figcaption');
    dialog.querySelector('img').src = button.querySelector('img').src;
    dialog.querySelector('p').textContent = `${button.dataset.of}: ${caption.textContent.trim()}`;
    dialog.showModal();
  });
}
dialog.addEventListener('click', () => dialog.close());
window.addEventListener('beforeprint', () => document.querySelectorAll('section > .panel > details').forEach((d) => { d.open = true; }));
